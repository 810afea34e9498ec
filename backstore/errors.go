package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/blockdev"
)

// The errors that a caller decides on. Every error of this package that has one of
// these causes wraps it. Those that any block device can have are the kinds of
// package blockdev.
var (
	ErrClosed   = blockdev.ErrClosed
	ErrRange    = blockdev.ErrRange
	ErrNoSpace  = blockdev.ErrNoSpace
	ErrCorrupt  = blockdev.ErrCorrupt // also a structure of the store that contradicts itself
	ErrReadOnly = blockdev.ErrReadOnly
	ErrInvalid  = blockdev.ErrInvalid

	// ErrLocked: another process owns the store.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNotFound: no volume, snapshot or record has that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("already exists")
	// ErrStoreReadOnly: the store was opened for reading alone.
	ErrStoreReadOnly = errors.New("store is open for reading alone")
	// ErrChanged: what was watched has changed since.
	ErrChanged = errors.New("data has changed")
	// ErrTooMany: a bound on the number of something is reached.
	ErrTooMany = errors.New("too many")
)

// FormatError is layout.FormatError.
type FormatError = layout.FormatError

// CorruptError is blockdev.CorruptError.
type CorruptError = blockdev.CorruptError

// corrupt returns err, which wraps ErrCorrupt if it says that metadata is damaged
// or contradicts itself.
func corrupt(err error) error {
	if errors.Is(err, ErrCorrupt) || !metadataDamage(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// metadataDamage reports whether err means that rows of metadata cannot be read
// right, or contradict each other.
func metadataDamage(err error) bool {
	return errors.Is(err, meta.ErrDamaged) || errors.Is(err, blockmap.ErrInconsistent) || errors.Is(err, extent.ErrInconsistent)
}
