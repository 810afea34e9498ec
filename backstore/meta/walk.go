package meta

import (
	"bytes"
)

// cursor walks the keys of a run in order.
type cursor struct {
	db   *DB
	run  *run
	t    int // table of the key
	keys keyReader
	end  bool

	rows    []row // of the table, when loaded
	rowsErr error
	loaded  bool
	keep    bool // add loaded tables to the cache
}

// seek returns a cursor at the first key not below from.
func (db *DB) seek(r *run, from []byte, keep bool) *cursor {
	c := &cursor{db: db, run: r, t: max(tableFor(r.tables, from), 0), keep: keep}
	if c.end = len(r.tables) == 0; c.end {
		return c
	}
	c.keys = keyReader{rest: r.tables[c.t].keys}
	for c.next(); !c.end && bytes.Compare(c.keys.key, from) < 0; c.next() {
	}
	return c
}

func (c *cursor) next() {
	for !c.keys.next() {
		if c.t++; c.t == len(c.run.tables) {
			c.end = true
			return
		}
		// A caller may still use the old key, so allocate a new one.
		c.keys = keyReader{rest: c.run.tables[c.t].keys}
		c.rows, c.rowsErr, c.loaded = nil, nil, false
	}
}

// row returns the row of the key, which must not be a deletion.
func (c *cursor) row() (*row, error) {
	if !c.loaded {
		c.loaded = true
		if rows, ok := c.db.cache.get(tableKey{c.run, c.t}); ok {
			c.rows = rows
		} else if c.keep {
			c.rows, c.rowsErr = c.db.rows(c.run, c.t)
		} else {
			c.rows, c.rowsErr = c.db.readTable(c.run, c.t)
		}
	}
	if c.rowsErr != nil {
		return nil, rowDamage(c.run, c.keys.key, c.rowsErr)
	}
	r := &c.rows[c.keys.live]
	if !bytes.Equal(r.key, c.keys.key) {
		return nil, rowDamage(c.run, c.keys.key, errSeal)
	}
	return r, nil
}

// walk calls fn with a cursor at each key from from on, in order: that of the newest
// run with the key.
func (db *DB) walk(runs []*run, from []byte, fn func(c *cursor) (more bool, err error)) error {
	m := newMerge(db, runs, from)
	for {
		least := m.least()
		if least == nil {
			return nil
		}
		if more, err := fn(least); err != nil || !more {
			return err
		}
		m.skip(least)
	}
}

// Scan calls fn with every readable row, and returns ErrDamaged at the end if some are
// not readable.
func (w view) Scan(prefix []byte, fn func(key, value []byte) error) error {
	var damage damageList
	err := w.db.walk(w.v.runs, prefix, func(c *cursor) (bool, error) {
		if !bytes.HasPrefix(c.keys.key, prefix) {
			return false, nil
		}
		if c.keys.deleted {
			return true, nil
		}
		if c.run.unproved {
			damage.add(rowDamage(c.run, c.keys.key, errUnproved))
			return true, nil
		}
		row, err := c.row()
		var body []byte
		if err == nil {
			body, err = openRow(c.run, row, c.keys.key)
		}
		if err != nil {
			damage.add(err)
			return true, nil
		}
		return true, fn(c.keys.key, body)
	})
	if err != nil {
		return err
	}
	for _, r := range w.v.runs {
		if r.lost != nil {
			damage.add(r.lost)
		}
	}
	return damage.err()
}
