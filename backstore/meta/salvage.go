package meta

import (
	"bytes"
	"errors"
)

// A read-only DB continues without a run that is lost in every copy. Rows of later runs
// are current. Rows only in earlier runs may have been changed by the lost run, so Get
// and Scan return ErrDamaged for them; Older returns them.

var errUnproved = errors.New("checkpoints that may have changed it are lost")

// lostRun returns a placeholder for checkpoints whose runs cannot be read.
func (db *DB) lostRun(id runID, why error) *run {
	r := &run{name: db.path(id.fileName())}
	r.id, r.store = id, db.o.StoreID
	r.lost = &DamagedError{File: r.name, Err: why}
	return r
}

// markUnproved marks the runs that are older than a lost one.
func markUnproved(runs []*run) {
	later := false
	for i := len(runs) - 1; i >= 0; i-- {
		runs[i].unproved = later
		later = later || runs[i].lost != nil
	}
}

// noteLost notes the runs that are lost, and marks those that are older.
func (db *DB) noteLost() {
	runs := db.current.runs
	for _, r := range runs {
		if r.lost != nil {
			db.noteDamage(r.name, 0, r.lost)
		}
	}
	markUnproved(runs)
}

// Lost returns the errors of runs that cannot be read, or nil.
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

// Version is a row as of a checkpoint that may not be the last one that changed it.
type Version struct {
	Value []byte
	// Checkpoint is the last one that may have stored this version.
	Checkpoint uint64
	// Proved: that the row still exists is known; what changed of it is not.
	Proved bool
}

// Older returns the newest readable version of a row. The error is ErrNotFound if there
// is none, or if the row was deleted later.
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

// Keys calls fn with the keys with a prefix, in order, of all rows that exist, or that
// existed when a lost run was stored, readable or not.
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
