// Package meta is the small transactional key-value store that the extent
// store keeps its metadata in. KV is all that the rest of the store knows
// about it: Badger is the embedded engine, Mem the in-memory twin for tests,
// and a distributed engine can come behind the same six methods.
package meta

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("key not found")
	// ErrTooLarge: one Update holds more than MaxOps or MaxBytes, or one Op
	// more than MaxKey or MaxValue.
	ErrTooLarge = errors.New("update exceeds the transaction limit of the metadata engine")
	// ErrLocked: another process has the database open.
	ErrLocked = errors.New("metadata is in use by another process")
	// ErrClosed: the KV was closed.
	ErrClosed = errors.New("metadata is closed")
)

// The limits of an Update. Every engine takes what is inside them and refuses
// what is not, so that a test against one engine holds for the others.
const (
	MaxOps   = 16384     // ops
	MaxBytes = 2 << 20   // bytes of all keys and values
	MaxKey   = 32 << 10  // bytes of one key
	MaxValue = 512 << 10 // bytes of one value
)

// Op sets a key, or deletes it when Value is nil. A non-nil empty Value is a
// value of length zero.
type Op struct {
	Key, Value []byte
}

// Reader is the part of a KV that changes nothing.
type Reader interface {
	// Get returns the caller's own copy of a value, never nil, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each key that starts with prefix, in ascending order,
	// as of one point in time; key and value are valid only during the call.
	// An error of fn ends the scan and is returned. fn may call Get and
	// Update, but not Close.
	Scan(prefix []byte, fn func(key, value []byte) error) error
}

// KV is an ordered map from byte strings to byte strings. All methods may be
// called side by side. Keys are not empty.
type KV interface {
	Reader
	// View calls fn with the map as it is now, whatever is changed meanwhile,
	// and returns fn's error. The Reader is valid only during the call. fn may
	// call what Scan's may.
	View(fn func(Reader) error) error
	// Update applies ops, all or none; of several ops on one key the last
	// counts. After ErrTooLarge nothing was applied; after any other error
	// (the disk is full, broken) all or none was. Slices belong to the caller
	// again when it returns. Get and Scan see it on return; it is durable
	// after Sync. A power cut leaves a prefix of the Updates made.
	Update(ops []Op) error
	// Sync returns when every Update that returned before is durable.
	Sync() error
	// Close syncs and ends; what is called later returns ErrClosed.
	Close() error
}

// check reports whether an Update is inside the limits.
func check(ops []Op) error {
	bytes := 0
	for _, op := range ops {
		switch {
		case len(op.Key) == 0:
			return errors.New("metadata update with an empty key")
		case len(op.Key) > MaxKey:
			return fmt.Errorf("key of %d bytes: %w", len(op.Key), ErrTooLarge)
		case len(op.Value) > MaxValue:
			return fmt.Errorf("value of %d bytes: %w", len(op.Value), ErrTooLarge)
		}
		bytes += len(op.Key) + len(op.Value)
	}
	if len(ops) > MaxOps || bytes > MaxBytes {
		return fmt.Errorf("%d ops, %d bytes: %w", len(ops), bytes, ErrTooLarge)
	}
	return nil
}
