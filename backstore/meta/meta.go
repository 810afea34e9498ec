// Package meta stores the rows of the extent store's metadata: an ordered map from byte
// strings to byte strings as of the last checkpoint.
//
// A DB is a list of runs. A run is a file, written once, with the rows changed by one
// or several checkpoints in Badger tables, and an index of all its keys. Every run has
// two copies, and all bytes are verified before use, so that a damaged row is read from
// the other copy, and a row that is not found does not exist. Tidy merges runs in the
// background.
//
// Mem is an implementation in memory for tests of other packages. Package format2 reads
// the metadata of older stores.
package meta

import "errors"

var (
	// ErrNotFound reports that the key has no row.
	ErrNotFound = errors.New("key not found")
	// ErrTooLarge reports a row that exceeds MaxKey or MaxValue.
	ErrTooLarge = errors.New("row exceeds the limits of the metadata engine")
	// ErrClosed reports that the DB is closed.
	ErrClosed = errors.New("metadata is closed")
)

// The limits of a row.
const (
	MaxKey   = 32 << 10  // bytes of a key
	MaxValue = 512 << 10 // bytes of a value
)

// Op sets a key, or deletes it when Value is nil. A non-nil empty Value is a
// value of length zero.
type Op struct {
	Key, Value []byte
}

// Reader reads rows. Its methods may be called concurrently.
type Reader interface {
	// Get returns a copy of a value, never nil, or ErrNotFound or ErrDamaged.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each row whose key starts with prefix, in ascending order, as
	// of one point in time; key and value are valid only during the call. An error of
	// fn ends the scan and is returned. If rows cannot be read, Scan continues with the
	// others and returns ErrDamaged at the end. fn may call Get and Store, but not
	// Close.
	Scan(prefix []byte, fn func(key, value []byte) error) error
}
