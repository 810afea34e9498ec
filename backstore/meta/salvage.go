package meta

import (
	"bytes"
	"errors"
)

// A DB that is only read goes on without a run that is lost in every copy. What later
// runs have is right. What only earlier ones have may have been changed by the run
// that is lost, so it is ErrDamaged to Get and Scan; Older returns it.

var errUnproved = errors.New("checkpoints that may have changed it are lost")

// lostRun stands for checkpoints whose run cannot be read.
func (db *DB) lostRun(id runID, why []error) *run {
	r := &run{name: db.path(id.fileName())}
	r.id, r.store = id, db.o.StoreID
	r.lost = &DamagedError{File: r.name, Err: errors.Join(why...)}
	db.noteDamage(r.name, 0, r.lost)
	return r
}

// markUnproved marks the runs that are older than a lost one.
func markUnproved(runs []*run) {
	behind := false
	for i := len(runs) - 1; i >= 0; i-- {
		runs[i].unproved = behind
		behind = behind || runs[i].lost != nil
	}
}

// Lost returns why runs cannot be read at all; nil where all can.
func (db *DB) Lost() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	var errs []error
	for _, r := range db.current.runs {
		if r.lost != nil {
			errs = append(errs, r.lost)
		}
	}
	return errors.Join(errs...)
}

// Version is a row as of a checkpoint that is not the last one that changed it, or
// not known to be.
type Version struct {
	Value []byte
	// Checkpoint is the last one that may have stored it so.
	Checkpoint uint64
	// Proved: that the row still exists is known; what changed of it is not.
	Proved bool
}

// Older returns the newest version of a row that can be read. ErrNotFound where there
// is none, or the row was deleted since.
func (db *DB) Older(key []byte) (Version, error) {
	v, err := db.acquire()
	if err != nil {
		return Version{}, err
	}
	defer db.release(v)
	proved := false
	for i := len(v.runs) - 1; i >= 0; i-- {
		r := v.runs[i]
		t := tableFor(r.tables, key)
		if t < 0 {
			continue
		}
		at, deleted, ok := r.tables[t].find(key)
		if !ok {
			continue
		}
		if deleted {
			break
		}
		proved = proved || !r.unproved
		rows, err := db.rows(r, t)
		if err != nil {
			continue
		}
		if body, err := openRow(r, &rows[at], key); err == nil {
			return Version{Value: bytes.Clone(body), Checkpoint: r.id.to, Proved: proved}, nil
		}
	}
	return Version{}, ErrNotFound
}

// Keys calls fn with the keys with a prefix of all rows that there are, or were when
// runs that are lost were stored, in order, whether they can be read or not.
func (db *DB) Keys(prefix []byte, fn func(key []byte) error) error {
	v, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(v)
	return db.walk(v.runs, prefix, func(c *cursor) (bool, error) {
		if !bytes.HasPrefix(c.keys.key, prefix) {
			return false, nil
		}
		if c.keys.deleted {
			return true, nil
		}
		return true, fn(bytes.Clone(c.keys.key))
	})
}
