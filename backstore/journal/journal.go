// Package journal is one sequential log with group commit: it makes
// acknowledged changes durable before they reach the places they belong to.
package journal

import (
	"context"
	"errors"

	"odx/backstore/vfs"
)

// LSN is the number of a record. The first record of a journal is 1; numbers
// are consecutive. 0 stands for no record.
type LSN uint64

// ErrClosed: the journal was closed.
var ErrClosed = errors.New("journal is closed")

// Options of Open.
type Options struct {
	FS      vfs.FS
	Dir     string   // folder of the journal, created if missing
	StoreID [16]byte // files of another store are refused
	// FileBytes is the size of one journal file; 0 means 64 MiB.
	FileBytes int64
	// MaxUnsynced bounds, in bytes, the records held in memory because they
	// are not durable yet; 0 means 16 MiB. A record can be no longer.
	MaxUnsynced int
	// First is where replay starts: what is below is skipped, and files that
	// hold nothing else are removed.
	First LSN
	// BeforeSync is called before the journal is synced, and makes durable
	// what the records point at. May be nil.
	BeforeSync func() error
}

// Journal is an open journal. All methods may be called side by side.
type Journal struct{}

// Open reads the journal in o.Dir and hands each record from o.First on to
// replay, in order. It ends at the first record that is torn or missing. The
// payload is valid only during the call; an error of replay aborts Open.
func Open(ctx context.Context, o Options, replay func(lsn LSN, payload []byte) error) (*Journal, error) {
	return nil, errors.New("not yet")
}

// Reserve waits until n payload bytes fit in the bounded memory.
func (j *Journal) Reserve(ctx context.Context, n int) error { return nil }

// Unreserve gives back a reservation, or a part of it, that was not used.
func (j *Journal) Unreserve(n int) {}

// Append copies head and data as one record and returns its number. It never
// waits for the disk. It consumes len(head)+len(data) bytes of a reservation.
func (j *Journal) Append(head, data []byte) LSN { return 0 }

// Commit returns when all records <= upTo are durable.
func (j *Journal) Commit(ctx context.Context, upTo LSN) error { return nil }

// Last is the number of the record appended last, 0 if there was none ever.
func (j *Journal) Last() LSN { return 0 }

// Durable is the number up to which records are durable.
func (j *Journal) Durable() LSN { return 0 }

// Rotate makes later records go to a new file and returns the number that the
// first of them will get.
func (j *Journal) Rotate() (LSN, error) { return 0, nil }

// Truncate gives up files that hold only records < below.
func (j *Journal) Truncate(below LSN) error { return nil }

// Bytes is the length of what was appended since the oldest kept file began.
func (j *Journal) Bytes() int64 { return 0 }

// Close commits what is appended and closes the files.
func (j *Journal) Close() error { return nil }
