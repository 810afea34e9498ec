package meta

import (
	"bytes"
	"context"
)

// folds reports whether to store a checkpoint of about expect bytes as one run with all
// rows. For a large checkpoint that uses less space and writes less than a separate run
// and a later merge.
func (db *DB) folds(runs []*run, expect int64) bool {
	if len(runs) == 0 || runs[0].id.from != 1 {
		return false
	}
	changes := expect
	need := expect + runs[0].size + db.o.Slack
	for _, r := range runs {
		if r.damaged.Load() || r.single() || r.lost != nil {
			return false
		}
	}
	for _, r := range runs[1:] {
		changes += r.size
		need += r.size
	}
	if changes <= max(db.o.MergeFloor, runs[0].size/mergePart) {
		return false
	}
	free, err := db.o.FS.Free(db.o.Dir)
	return err == nil && free >= need
}

// fold stores a checkpoint together with all earlier rows.
func (db *DB) fold(runs []*run, last uint64, rows func(put func(Op) error) error) error {
	id := runID{1, last}
	r, err := db.replace(context.Background(), id, runs, joining(db, id, runs, rows))
	if err != nil {
		return err
	}
	db.stats.checkpoints.Add(r.size * int64(len(r.copies)))
	db.install(func([]*run) []*run { return []*run{r} })
	return db.removeObsolete(context.Background(), nil)
}

// joining returns a function that puts the merged rows of runs and of a later
// checkpoint, as the run id.
func joining(db *DB, id runID, runs []*run, rows func(put func(Op) error) error) func(put func(key, sealed []byte) error) error {
	return func(put func(key, sealed []byte) error) error {
		m := newMerge(db, runs, nil)
		m.all = id.from == 1
		add := sealing(func(key, sealed []byte) error {
			if err := m.before(key, put); err != nil || sealed == nil && m.all {
				return err
			}
			return put(key, sealed)
		})
		if err := rows(add); err != nil {
			return err
		}
		return m.before(nil, put)
	}
}

// merge iterates over the merged rows of several runs.
type merge struct {
	cursors []*cursor // oldest run first
	all     bool      // no older rows exist, so deletions are dropped
}

func newMerge(db *DB, runs []*run, from []byte) *merge {
	m := &merge{}
	for _, r := range runs {
		m.cursors = append(m.cursors, db.seek(r, from, false))
	}
	return m
}

// least returns the cursor of the newest run with the lowest key, or nil at the end.
func (m *merge) least() *cursor {
	var least *cursor
	for _, c := range m.cursors {
		if !c.end && (least == nil || bytes.Compare(c.keys.key, least.keys.key) <= 0) {
			least = c
		}
	}
	return least
}

// skip advances past a key in all runs.
func (m *merge) skip(least *cursor) {
	key := least.keys.key
	for _, c := range m.cursors {
		if c != least && !c.end && bytes.Equal(c.keys.key, key) {
			c.next()
		}
	}
	least.next()
}

// before puts all rows with keys below key and skips key, or puts all remaining rows if
// key is nil.
func (m *merge) before(key []byte, put func(key, sealed []byte) error) error {
	for {
		c := m.least()
		if c == nil || key != nil && bytes.Compare(c.keys.key, key) > 0 {
			return nil
		}
		if key != nil && bytes.Equal(c.keys.key, key) {
			m.skip(c)
			return nil
		}
		if err := m.put(c, put); err != nil {
			return err
		}
		m.skip(c)
	}
}

// put puts the row at a cursor, or its deletion.
func (m *merge) put(c *cursor, put func(key, sealed []byte) error) error {
	if c.keys.deleted {
		if m.all {
			return nil
		}
		return put(c.keys.key, nil)
	}
	row, err := c.row()
	if err == nil {
		_, err = openRow(c.run, row, c.keys.key)
	}
	if err != nil {
		return err
	}
	return put(row.key, row.sealed)
}
