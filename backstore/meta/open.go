package meta

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// openRuns opens the runs that have all checkpoints from the first to the newest.
// Replaced runs are kept until Tidy has verified the new ones.
func (db *DB) openRuns(names []string) (runs []*run, err error) {
	seconds := make(map[runID]bool)
	for _, name := range names {
		// An unfinished run uses its number: it may be removed at any time.
		if id, _, ok := parseRunName(strings.TrimSuffix(name, newSuffix)); ok {
			db.next = max(db.next, id.to)
		}
		if id, second, ok := parseRunName(name); ok {
			seconds[id] = seconds[id] || second || db.o.Copies > 1
		}
	}
	// Of the runs that begin with a checkpoint the longest comes first.
	ids := slices.SortedFunc(maps.Keys(seconds), func(a, b runID) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to))
	})
	defer func() {
		if err != nil {
			for _, r := range runs {
				r.close()
			}
		}
	}()
	next := uint64(1)
	var failed []error
	for _, id := range ids {
		if id.to < next {
			continue // another run includes it
		}
		if id.from != next {
			failed = append(failed, db.gap(next, id.from-1))
			if !db.o.ReadOnly {
				return runs, errors.Join(failed...)
			}
			runs, failed = append(runs, db.lostRun(runID{next, id.from - 1}, failed)), nil
		}
		r, err := db.openRun(id, seconds[id])
		if err == nil && r.single() && hasParts(ids, id) {
			// A merged run whose parts exist: either must be complete before the other
			// is removed.
			if err = db.prove(r); err != nil {
				r.close()
			}
		}
		if err != nil {
			// Its parts may still exist.
			failed = append(failed, err)
			continue
		}
		runs = append(runs, r)
		next = id.to + 1
	}
	db.next++
	last := next - 1
	for _, id := range ids {
		last = max(last, id.to)
	}
	whole := slices.ContainsFunc(runs, func(r *run) bool { return r.lost == nil })
	if last >= next && db.o.ReadOnly {
		runs = append(runs, db.lostRun(runID{next, last}, failed))
	}
	if last >= next && !db.o.ReadOnly || len(ids) > 0 && !whole {
		return runs, errors.Join(failed...)
	}
	markUnproved(runs)
	db.findObsolete(names, runs)
	return runs, nil
}

// single reports whether a copy of the run is missing.
func (r *run) single() bool {
	return slices.ContainsFunc(r.copies, func(c runCopy) bool { return c.file == nil })
}

// hasParts reports whether files of the parts of a merged run exist.
func hasParts(ids []runID, whole runID) bool {
	return slices.ContainsFunc(ids, func(id runID) bool {
		return id != whole && whole.from <= id.from && id.to <= whole.to
	})
}

func (db *DB) gap(first, last uint64) error {
	return &DamagedError{
		File: db.path(runID{first, last}.fileName()),
		Err:  fmt.Errorf("checkpoints %d to %d are missing: %w", first, last, fs.ErrNotExist),
	}
}

// findObsolete lists the files that are not of runs: unfinished and merged ones.
func (db *DB) findObsolete(names []string, runs []*run) {
	live := make(map[string]bool)
	for _, r := range runs {
		live[r.id.fileName()], live[r.id.fileName()+copySuffix] = true, true
	}
	for _, name := range names {
		_, _, is := parseRunName(strings.TrimSuffix(name, newSuffix))
		if is && !live[name] {
			db.obsolete[db.path(name)] = obsolete{}
		}
	}
}
