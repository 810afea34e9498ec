package pebblekv

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"odx/backstore/meta"
)

// formatVersion is the format of new metadata. Pebble reads all formats of its version 2.
const formatVersion = pebble.FormatTableFormatV6

const (
	blockBytes  = 16 << 10 // of rows in a table; a read from far away costs a round trip, not bytes
	tableBytes  = 8 << 20  // of a table that a compaction makes
	memoryBytes = 64 << 10 // of what Pebble has for rows that are not in tables: there are none
	openFiles   = 500
)

// instance is an open Pebble. One for reading alone is replaced when something is to be
// stored, and one whose list of tables could not be written when the next is to be: what it
// wrote may be in the file or not, so the files are opened again to find out.
type instance struct {
	p        *pebble.DB
	fs       *fileSystem
	turns    *turns
	writable bool
	refs     int // guarded by db.mu
}

// openInstance opens Pebble. ReadOnly and ErrorIfNotExists are those of of.
func (d *db) openInstance(of pebble.Options) (*instance, error) {
	fs := &fileSystem{base: d.o.FS, later: d.later}
	o := &pebble.Options{
		FS: fs, Cache: d.cache, ReadOnly: of.ReadOnly, ErrorIfNotExists: of.ErrorIfNotExists,
		// Statistics of a table that cannot be read are tried for without end.
		DisableTableStats: true,
		DisableWAL:        true, FormatMajorVersion: formatVersion, MemTableSize: memoryBytes, MaxOpenFiles: openFiles,
		// A checkpoint is a sublevel of level 0: with more of them, a get reads more blocks.
		L0CompactionThreshold: 4, L0StopWritesThreshold: 1 << 20,
		Logger:        logger{d, fs},
		LBaseMaxBytes: 64 << 20, TargetByteDeletionRate: 0,
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockBytes
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = tableBytes
	}
	turns := &turns{}
	o.Experimental.CompactionScheduler = turns
	o.EventListener = turns.listener()
	fs.opening.Store(true)
	p, err := pebble.Open(d.o.Dir, o)
	fs.opening.Store(false)
	if why := fs.change(); why != nil {
		if err == nil {
			_ = p.Close() // nothing is written any more
		}
		return nil, why
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.alive++
	d.mu.Unlock()
	return &instance{p: p, fs: fs, turns: turns, writable: !of.ReadOnly, refs: 1}, nil
}

// withInstance calls fn with the current instance, nil where nothing was stored.
func (d *db) withInstance(fn func(in *instance) error) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return meta.ErrClosed
	}
	in := d.current
	d.readers.Add(1)
	if in != nil {
		in.refs++
	}
	d.mu.Unlock()
	defer d.readers.Done()
	return with(fn(in), d.drop(in))
}

// with returns an error with another one, as it is where there is no other one.
func with(err, other error) error {
	if other == nil {
		return err
	}
	return errors.Join(err, other)
}

// drop gives an instance back, which is closed with its last reference. Files that older
// instances could still read are removed when one is left.
func (d *db) drop(in *instance) error {
	if in == nil {
		return nil
	}
	d.mu.Lock()
	in.refs--
	over := in.refs == 0
	d.mu.Unlock()
	if !over {
		return nil
	}
	err := in.p.Close()
	if in.fs.broken() {
		err = nil // reported when it happened
	}
	d.mu.Lock()
	d.alive--
	var removals []func()
	if d.alive <= 1 {
		removals, d.removals = d.removals, nil
	}
	d.mu.Unlock()
	for _, remove := range removals {
		remove()
	}
	return err
}

// writable returns an instance that can store, and makes it the current one. d.storing is
// held, so that it remains the current one.
func (d *db) writable() (*instance, error) {
	d.mu.Lock()
	in, closed := d.current, d.closed
	d.mu.Unlock()
	switch {
	case closed:
		return nil, meta.ErrClosed
	case in != nil && in.writable && !in.fs.broken():
		return in, nil
	}
	next, err := d.openInstance(pebble.Options{ErrorIfNotExists: in != nil})
	if err != nil {
		return nil, fmt.Errorf("open metadata for writing: %w", err)
	}
	if err := d.removeLeft(); err != nil {
		return nil, errors.Join(err, d.drop(next))
	}
	d.mu.Lock()
	d.current = next
	d.mu.Unlock()
	return next, d.drop(in)
}

// later keeps a removal for when no older instance can read the file, and reports whether
// there is one.
func (d *db) later(remove func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive > 1 {
		d.removals = append(d.removals, remove)
	}
	return d.alive > 1
}

// logger passes what Pebble says on. Pebble calls Fatalf where it does not know whether the
// list of tables was written, or finds itself wrong, and then returns an error where a file
// has failed: the instance changes nothing more, and is replaced.
type logger struct {
	d  *db
	fs *fileSystem
}

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.d.o.Log.WithField("engine", "pebble").Debugf(format, args...)
}

func (l logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	why := errors.New(text)
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			why = err // what it is of can be told
		}
	}
	l.fs.breaks(why)
	l.d.o.Log.WithField("engine", "pebble").Warn("metadata is opened again before the next checkpoint: " + text)
}
