// Package pebblekv stores the rows of metadata in Pebble, an LSM tree of immutable tables,
// for stores whose files are far away: a row is found by reading a few blocks, and opening
// reads no more than the list of tables.
//
// A checkpoint is not written row by row: it comes in the order of its keys, so it becomes
// tables of its own, which Pebble ingests in one step. There is no log and nothing in
// memory that is not in a file. Until a store has been opened (Settle), and something is to
// be stored, Pebble is open for reading alone: it removes nothing and compacts nothing.
//
// What Pebble does not find is no proof that it was not stored: it takes the readable
// beginning of a damaged list of tables for all of it. So every checkpoint has a row with
// its number, and tables that the list does not name are looked into when it is opened: one
// of a later checkpoint is damage, unless the journal makes it unneeded. Blocks have
// checksums of Pebble, rows those of meta. There is one copy of each file.
package pebblekv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/sirupsen/logrus"

	"odx/backstore/meta"
)

// Engine is Pebble as an engine of package meta.
func Engine() meta.Engine { return engine{} }

type engine struct{}

func (engine) Kind() meta.Kind { return meta.KindPebble }

func (engine) Open(o meta.Options) (meta.KV, error) {
	db, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	return db, nil
}

// Keys of rows have a byte before them, so that a checkpoint's own row is the first of its
// tables.
const (
	markPrefix = 0
	rowPrefix  = 1
)

var markKey = []byte{markPrefix}

// mark is the row of a checkpoint: the store, and the number of the checkpoint.
type mark struct {
	store  [16]byte
	number uint64
}

func (m mark) encode() []byte {
	return meta.Seal(markKey, binary.BigEndian.AppendUint64(m.store[:], m.number))
}

func decodeMark(sealed []byte) (m mark, err error) {
	b, err := meta.Unseal(markKey, sealed)
	if err != nil || len(b) != 24 {
		return m, errors.Join(err, errors.New("the row of a checkpoint is not one"))
	}
	copy(m.store[:], b)
	m.number = binary.BigEndian.Uint64(b[16:])
	return m, nil
}

// db is rows in Pebble.
type db struct {
	o     meta.Options
	cache *pebble.Cache

	storing sync.Mutex // held while a checkpoint is stored, or files are compacted for the first time

	mu       sync.Mutex // guards the fields below, and refs of instances
	current  *instance  // nil where nothing was stored
	alive    int        // instances that are not closed
	closed   bool
	settled  bool
	readers  sync.WaitGroup
	removals []func() // of files that an older instance may still read

	last     atomic.Uint64 // number of the newest checkpoint
	attempts uint64        // of checkpoints, for names; guarded by storing
	unneeded error         // set by open
	noted    sync.Map      // damage that was logged, by its text
	stats    struct{ checkpoints, damaged atomic.Int64 }
	tidying  sync.Mutex // held while files are compacted
}

func open(o meta.Options) (_ *db, err error) {
	if o.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(l)
	}
	d := &db{o: o, cache: pebble.NewCache(max(o.CacheBytes, 1<<20))}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	found, err := d.look()
	if err != nil {
		return nil, err
	}
	if found.empty() {
		return d, nil
	}
	if found.marker == "" {
		return nil, &meta.DamagedError{File: d.path("marker.manifest.*"), Err: errors.New("it is missing, and with it which list of tables is the last one")}
	}
	if d.current, err = d.openInstance(pebble.Options{ReadOnly: true, ErrorIfNotExists: true}); err != nil {
		return nil, d.openError(found, err)
	}
	m, err := d.readMark()
	if err != nil {
		return nil, err
	}
	d.last.Store(m.number)
	return d, d.judgeStrays(found, m)
}

// readMark returns the row of the newest checkpoint, zero where there is none.
func (d *db) readMark() (m mark, err error) {
	err = d.with(func(r reader) error {
		value, err := r.get(markKey)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m, err = decodeMark(value); err == nil && m.store != d.o.StoreID {
			err = fmt.Errorf("it is of store %x", m.store)
		}
		if err != nil {
			return &meta.DamagedError{File: d.o.Dir, Err: err}
		}
		return nil
	})
	return m, err
}

// Last implements meta.KV.
func (d *db) Last() uint64 { return d.last.Load() }

// Lost implements meta.KV: a file that is lost is an error of Open.
func (d *db) Lost() error { return nil }

// Unneeded implements meta.KV.
func (d *db) Unneeded() error { return d.unneeded }

// Older implements meta.KV: there are no older versions.
func (d *db) Older([]byte) (meta.Version, error) { return meta.Version{}, meta.ErrNotFound }

// Settle implements meta.KV.
func (d *db) Settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = true
}

// Stats implements meta.KV.
func (d *db) Stats() meta.Stats {
	st := meta.Stats{CheckpointBytes: d.stats.checkpoints.Load(), Damaged: d.stats.damaged.Load()}
	_ = d.withInstance(func(in *instance) error {
		if in == nil {
			return nil
		}
		m := in.p.Metrics()
		st.Bytes = int64(m.DiskSpaceUsage())
		for _, level := range m.Levels {
			st.Runs += int(level.TablesCount)
			st.MergeBytes += int64(level.TableBytesCompacted)
		}
		return nil
	})
	return st
}

// Close implements meta.KV.
func (d *db) Close() error {
	d.storing.Lock()
	defer d.storing.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return meta.ErrClosed
	}
	d.closed = true
	d.mu.Unlock()
	d.readers.Wait()
	d.mu.Lock()
	in := d.current
	d.current = nil
	d.mu.Unlock()
	err := d.drop(in)
	d.cache.Unref()
	return err
}
