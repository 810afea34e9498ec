package meta

import (
	"context"
	"fmt"
)

// Kind says which engine stores the rows of a store. It is in the superblock.
type Kind uint8

// The engines. A number is never used again.
const (
	KindTables Kind = 0 // DB
	KindPebble Kind = 1 // package pebblekv
)

func (k Kind) String() string {
	switch k {
	case KindTables:
		return "tables"
	case KindPebble:
		return "pebble"
	}
	return fmt.Sprintf("engine %d", uint8(k))
}

// Engine opens rows.
type Engine interface {
	Kind() Kind
	// Open opens the rows in o.Dir, or makes them if there are none. It changes no file:
	// see KV.Settle. The error is ErrDamaged, with the files, for rows that cannot be read.
	Open(o Options) (KV, error)
}

// KV is the rows of an open store. It is safe for concurrent use.
type KV interface {
	Reader
	// View calls fn with a point-in-time view of the rows. The Reader is valid only during
	// the call.
	View(fn func(Reader) error) error
	// Keys calls fn with the keys with a prefix, in order, of all rows that exist, whether
	// their values can be read or not, as far as the engine knows the keys of what is
	// damaged; else it returns ErrDamaged at the end.
	Keys(prefix []byte, fn func(key []byte) error) error
	// Older returns the newest readable version of a row that is damaged, or ErrNotFound.
	Older(key []byte) (Version, error)
	// Last returns the number of the newest checkpoint, or 0.
	Last() uint64
	// Lost returns the errors of files that cannot be read and that a store which is only
	// read does without, or nil.
	Lost() error
	// Unneeded returns why files of later checkpoints than Last cannot be read, whose rows
	// Options.Unneeded has proved not to be needed, or nil.
	Unneeded() error
	// Settle permits changes of files, once the owner of the rows has opened all that
	// belongs to them.
	Settle()
	// Store stores the next checkpoint: rows calls put with each changed row, keys
	// ascending; a nil Value deletes a row. When Store returns nil, the checkpoint is
	// durable. It is atomic. After an error it may exist or not, so the next checkpoint
	// must include all its rows. expect is the approximate number of bytes.
	Store(expect int64, rows func(put func(Op) error) error) error
	// Tidy does work in the background, concurrently with Store, Get and Scan.
	Tidy(ctx context.Context) error
	// Scrub reads and verifies every byte, and repairs what it can. It calls wait before
	// each read with its length in bytes. The error joins an ErrDamaged for each damage.
	Scrub(ctx context.Context, wait func(ctx context.Context, bytes int) error) error
	Stats() Stats
	// Close waits for readers and closes the files.
	Close() error
}

var _ KV = (*DB)(nil)

// Tables is the default engine: see DB.
func Tables() Engine { return tables{} }

type tables struct{}

func (tables) Kind() Kind { return KindTables }

func (tables) Open(o Options) (KV, error) {
	db, err := Open(o)
	if err != nil {
		return nil, err
	}
	return db, nil
}

// Seal returns the stored form of a row, with a checksum of its key and body.
func Seal(key, body []byte) []byte { return appendSealed(nil, key, body) }

// Unseal returns the body of a stored row.
func Unseal(key, sealed []byte) ([]byte, error) { return unseal(key, sealed) }
