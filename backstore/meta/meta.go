// Package meta keeps the rows of the extent store's metadata: an ordered map
// from byte strings to byte strings as of the last checkpoint.
//
// A DB is a list of runs. A run is a file with the rows that one checkpoint
// changed, or several together, in tables of Badger's, with an index of all keys
// that it has. It is written once. Every run is kept twice, and every byte of it
// is verified before it is used, so that a damaged row is read from the other
// copy, and a row that is not found is proved not to exist. Tidy merges runs in
// the background.
//
// Mem is a twin in memory for tests of what is above. Package format2 below
// reads the metadata of older stores.
package meta

import "errors"

var (
	// ErrNotFound: the key has no row, which is proved.
	ErrNotFound = errors.New("key not found")
	// ErrTooLarge: a row exceeds MaxKey or MaxValue.
	ErrTooLarge = errors.New("row exceeds the limits of the metadata engine")
	// ErrClosed: the DB was closed.
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
	// Get returns the caller's own copy of a value, never nil, or ErrNotFound,
	// or ErrDamaged.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each row whose key starts with prefix, in ascending
	// order, as of one point in time; key and value are valid only during the
	// call. An error of fn ends the scan and is returned. Where rows cannot be
	// read it goes on with the others, and returns ErrDamaged in the end. fn may
	// call Get and Store, but not Close.
	Scan(prefix []byte, fn func(key, value []byte) error) error
}
