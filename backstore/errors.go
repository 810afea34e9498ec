package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
)

// The errors that a caller decides on. Every error of this package that has
// one of these causes wraps it.
var (
	// ErrClosed: the store was closed, or is closing.
	ErrClosed = errors.New("store is closed")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNotFound: no volume, snapshot or record has that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("already exists")
	// ErrRange: a byte range is not inside the address space.
	ErrRange = errors.New("range outside the volume")
	// ErrNoSpace: the store, or the file system it lives on, is full. Reads
	// and unmaps go on; the write was not done.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrCorrupt: stored bytes do not match their checksum, or a structure of
	// the store contradicts itself. A read that meets it returns CorruptError.
	ErrCorrupt = errors.New("stored data is corrupt")
	// ErrStoreReadOnly: the store was opened for reading alone.
	ErrStoreReadOnly = errors.New("store is open for reading alone")
	// ErrReadOnly: the volume is a snapshot, which is never written to.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrChanged: what was watched has changed since.
	ErrChanged = errors.New("data has changed")
	// ErrTooMany: a bound on the number of something is reached.
	ErrTooMany = errors.New("too many")
	// ErrInvalid: an argument that no store could accept (name, size, length).
	ErrInvalid = errors.New("invalid argument")
)

// CorruptError says which bytes of an address space cannot be read because what
// is stored for them is damaged. It wraps ErrCorrupt.
type CorruptError struct {
	Name   string // "volume NAME" or "snapshot N"
	Offset int64  // in bytes, of the first block that cannot be read
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: block at byte %d: %v", e.Name, e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

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
