package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Scrub reads every byte of every copy, repairs damage from the other copy, and
// restores missing copies. It calls wait before each read with its length in bytes. The
// error joins an ErrDamaged for each lost table.
func (db *DB) Scrub(ctx context.Context, wait func(ctx context.Context, bytes int) error) error {
	db.merging.Lock()
	defer db.merging.Unlock()
	v, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(v)
	var damage damageList
	for _, r := range v.runs {
		if r.lost != nil {
			damage.add(r.lost)
			continue
		}
		db.findNames(r)
		db.mendParts(r)
		for at := range r.tables {
			if err := wait(ctx, int(r.tables[at].length)*len(r.copies)); err != nil {
				return err
			}
			if err := db.proveTable(r, at); err != nil {
				damage.add(err)
			}
		}
	}
	if !db.o.ReadOnly {
		if err := db.restoreCopies(ctx, v.runs); errors.Is(err, ErrDamaged) {
			damage.add(err)
		} else if err != nil {
			return err
		}
	}
	return damage.err()
}

// findNames drops the copies whose file has no name.
func (db *DB) findNames(r *run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.copies {
		c := &r.copies[i]
		f, err := db.o.FS.Open(c.name)
		if err == nil {
			f.Close()
			continue
		}
		db.noteDamage(c.name, -1, err)
		others := 0
		for k := range r.copies {
			if k != i && r.copies[k].file != nil {
				others++
			}
		}
		// The last open copy remains readable.
		if errors.Is(err, fs.ErrNotExist) && c.file != nil && others > 0 {
			db.noteError(c.name, c.file.Close())
			c.file = nil
		}
	}
}

// proveTable reads a table from every copy and repairs damaged ones. The error is
// ErrDamaged if all are.
func (db *DB) proveTable(r *run, at int) error {
	ref := &r.tables[at]
	good := make([]byte, ref.length)
	b := make([]byte, ref.length)
	r.mu.Lock()
	defer r.mu.Unlock()
	found, bad := false, make(map[int]error)
	for i := range r.copies {
		if r.copies[i].file == nil {
			continue
		}
		if err := readWhole(r.copies[i].file, ref.off, b, ref.crc); err != nil {
			bad[i] = err
		} else if !found {
			good, b, found = b, good, true
		}
	}
	if !found {
		r.damaged.Store(true)
		db.noteDamage(r.name, ref.off, errChecksum)
		return &DamagedError{File: r.name, Err: fmt.Errorf("rows from %q on, %d bytes at %d: %w", ref.first, ref.length, ref.off, errChecksum)}
	}
	for i, err := range bad {
		db.mendAt(r, &r.copies[i], ref.off, good, err)
	}
	return nil
}
