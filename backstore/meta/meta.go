// Package meta is the small transactional key-value store that the extent
// store keeps its metadata in. KV is all that the rest of the store knows
// about it: Badger is the embedded engine, Mem the in-memory twin for tests,
// and a distributed engine can come behind the same five methods.
package meta

import "errors"

var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("key not found")
	// ErrTooLarge: one Update holds more than the engine's transaction limit.
	ErrTooLarge = errors.New("update exceeds the transaction limit of the metadata engine")
	// ErrLocked: another process has the database open.
	ErrLocked = errors.New("metadata is in use by another process")
	// ErrClosed: the KV was closed.
	ErrClosed = errors.New("metadata is closed")
)

// Op sets a key, or deletes it when Value is nil. A non-nil empty Value is a
// value of length zero.
type Op struct {
	Key, Value []byte
}

// KV is an ordered map from byte strings to byte strings. All methods may be
// called side by side. Keys are not empty.
type KV interface {
	// Get returns the caller's own copy of a value, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each key that starts with prefix, in ascending order,
	// on one point in time; key and value are valid only during the call. An
	// error of fn ends the scan and is returned. fn may call Get and Update.
	Scan(prefix []byte, fn func(key, value []byte) error) error
	// Update applies ops in order, all or none; the last of several ops on one
	// key counts. ErrTooLarge when they exceed the engine's limit. Slices
	// belong to the caller again when it returns. It is visible to Get and
	// Scan on return, durable only after Sync; after a power cut the Updates
	// found are a prefix of those made.
	Update(ops []Op) error
	// Sync returns when every Update that returned before is durable.
	Sync() error
	// Close syncs and ends.
	Close() error
}
