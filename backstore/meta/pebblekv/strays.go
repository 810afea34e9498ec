package pebblekv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/sstable"

	"odx/backstore/meta"
)

// madePrefix begins the name of a table that is not Pebble's yet.
const madePrefix = "made-"

func (d *db) path(name string) string { return filepath.Join(d.o.Dir, name) }

func tableName(number uint64) string { return fmt.Sprintf("%06d.sst", number) }

// files are the names of Pebble's files in the directory.
type files struct {
	marker string // the newest one
	tables []uint64
	other  int
}

func (f files) empty() bool { return f.marker == "" && len(f.tables) == 0 && f.other == 0 }

func (d *db) look() (f files, err error) {
	names, err := d.o.FS.List(d.o.Dir)
	if err != nil {
		return f, err
	}
	for _, name := range names {
		table, isTable := strings.CutSuffix(name, ".sst")
		switch {
		case strings.HasPrefix(name, "marker.manifest."):
			f.marker = max(f.marker, name)
		case isTable:
			number, err := strconv.ParseUint(table, 10, 64)
			if err == nil {
				f.tables = append(f.tables, number)
			}
		case strings.HasPrefix(name, "MANIFEST-"), strings.HasPrefix(name, "OPTIONS-"), strings.HasPrefix(name, "marker."):
			f.other++
		}
	}
	return f, nil
}

// openError returns why rows cannot be opened.
func (d *db) openError(_ files, err error) error {
	if known := d.readError(err); errors.Is(known, meta.ErrDamaged) || errors.Is(err, fs.ErrPermission) {
		return known
	}
	// A list of tables that names what is not there, or does not decode.
	return d.damaged(nil, err)
}

// judgeStrays looks into tables that the list of tables does not name. They are what was
// left behind by a compaction or a checkpoint that did not end, or the list has lost its
// end: a later checkpoint than the newest one known, or one that cannot be read, is damage,
// unless what is known suffices.
func (d *db) judgeStrays(found files, known mark) error {
	named, err := d.current.tables()
	if err != nil {
		return d.readError(err)
	}
	var later []error
	for _, number := range found.tables {
		if named[number] > 0 {
			continue
		}
		name := d.path(tableName(number))
		m, ok, err := d.markOf(name)
		if err != nil {
			later = append(later, fmt.Errorf("%s: %w", name, err))
		} else if ok && m.number > known.number {
			later = append(later, fmt.Errorf("%s: it is of checkpoint %d, and the list of tables ends with checkpoint %d", name, m.number, known.number))
		}
	}
	if len(later) == 0 {
		return nil
	}
	why := &meta.DamagedError{File: d.o.Dir, Err: errors.Join(later...)}
	if d.o.Unneeded == nil {
		return why
	}
	err = d.View(func(r meta.Reader) error {
		suffices, err := d.o.Unneeded(r)
		if err == nil && !suffices {
			err = why
		}
		return err
	})
	if err != nil {
		return err
	}
	d.unneeded = why
	return nil
}

// openTable opens a table that need not be in the list of tables.
func (d *db) openTable(name string) (*sstable.Reader, error) {
	f, err := (&fileSystem{base: d.o.FS}).Open(name)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return sstable.NewReader(context.Background(), readable, defaults().MakeReaderOptions())
}

// markOf returns the row of a checkpoint in a table, if it has one.
func (d *db) markOf(name string) (m mark, ok bool, err error) {
	r, err := d.openTable(name)
	if err != nil {
		return m, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, []byte{rowPrefix}, sstable.AssertNoBlobHandles)
	if err != nil {
		return m, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	kv := it.First()
	if kv == nil {
		return m, false, it.Error()
	}
	value, _, err := kv.Value(nil)
	if err != nil {
		return m, false, err
	}
	m, err = decodeMark(value)
	return m, err == nil, err
}

// proveTable reads all blocks of a table. The error is ErrDamaged if one is wrong.
func (d *db) proveTable(name string) error {
	r, err := d.openTable(d.path(name))
	if err == nil {
		err = errors.Join(r.ValidateBlockChecksums(), r.Close())
	}
	if err == nil {
		return nil
	}
	known := d.readError(err)
	if de, ok := errors.AsType[*meta.DamagedError](known); ok {
		return &meta.DamagedError{File: d.path(name), Err: de.Err}
	}
	return known
}

// removeLeft removes tables of checkpoints that were not stored. Pebble removes its own.
func (d *db) removeLeft() error {
	names, err := d.o.FS.List(d.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, madePrefix) {
			if err := d.o.FS.Remove(d.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}
