package meta

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// maxNumber bounds the numbers that names of files without content of this DB use up.
// Numbers of checkpoints do not reach it, so those of new ones cannot overflow.
const maxNumber = 1 << 62

// opening opens the runs of a directory. The name of a file proves nothing: a run exists
// where a copy of it can be read.
type opening struct {
	db      *DB
	ids     []runID        // by first checkpoint; of equal ones the longest comes first
	seconds map[runID]bool // whether there may be a second copy
	runs    map[runID]*run // those that can be read, of the tried ones
	failed  map[runID]error
}

// openRuns opens the runs with all checkpoints from the first to the newest. Replaced
// runs are kept until Tidy has verified the new ones. tail stands for the runs after the
// newest one that can be read, none of which can be read; it is nil if there is none.
func (db *DB) openRuns(names []string) (runs []*run, tail *run, err error) {
	o := &opening{db: db, seconds: make(map[runID]bool), runs: make(map[runID]*run), failed: make(map[runID]error)}
	for _, name := range names {
		// An unfinished run uses its number: it may be removed at any time.
		if id, _, ok := parseRunName(strings.TrimSuffix(name, newSuffix)); ok && id.to < maxNumber {
			db.next = max(db.next, id.to)
		}
		if id, second, ok := parseRunName(name); ok {
			o.seconds[id] = o.seconds[id] || second || db.o.Copies > 1
		}
	}
	o.ids = slices.SortedFunc(maps.Keys(o.seconds), func(a, b runID) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to))
	})
	if runs, err = o.chain(); err == nil && len(o.ids) > 0 && !slices.ContainsFunc(runs, (*run).readable) {
		err = o.why(runID{1, o.last()})
	}
	o.closeOthers(runs, err)
	if err != nil {
		return nil, nil, err
	}
	next := end(runs) + 1
	db.next = max(db.next, next-1) + 1
	if last := o.last(); last >= next {
		tail = db.lostRun(runID{next, last}, o.why(runID{next, last}))
	}
	db.findObsolete(names, runs)
	return runs, tail, nil
}

// judgeTail decides about runs that cannot be read, after the newest one that can: they
// are lost, unless the owner of the rows proves that nothing of them is needed.
func (db *DB) judgeTail(tail *run) error {
	if tail == nil {
		return nil
	}
	if db.o.Unneeded != nil && !undecided(tail.lost) {
		unneeded, err := db.o.Unneeded(db)
		if err != nil {
			return err
		}
		if unneeded {
			db.unneeded = tail.lost.Err
			return nil
		}
	}
	if !db.o.ReadOnly {
		return tail.lost.Err
	}
	db.current.runs = append(db.current.runs, tail)
	return nil
}

func (r *run) readable() bool { return r.lost == nil }

// end returns the last checkpoint of consecutive runs, 0 for none.
func end(runs []*run) uint64 {
	if len(runs) == 0 {
		return 0
	}
	return runs[len(runs)-1].id.to
}

// last is the last checkpoint in the names.
func (o *opening) last() (last uint64) {
	for _, id := range o.ids {
		last = max(last, id.to)
	}
	return last
}

// chain returns consecutive runs, up to the newest one that can be read. One that cannot,
// between those, is an error, or lost in a DB that is read only.
func (o *opening) chain() (runs []*run, err error) {
	for {
		next := end(runs) + 1
		if r := o.at(next); r != nil {
			runs = append(runs, r)
			continue
		}
		later := slices.IndexFunc(o.ids, func(id runID) bool { return id.from > next && o.open(id) != nil })
		if later < 0 {
			return runs, nil
		}
		lost := runID{next, o.ids[later].from - 1}
		why := o.why(lost)
		if !o.db.o.ReadOnly {
			return runs, why
		}
		runs = append(runs, o.db.lostRun(lost, why))
	}
}

// at returns the longest run that begins with a checkpoint, or nil.
func (o *opening) at(from uint64) *run {
	for _, id := range o.ids {
		if id.from != from {
			continue
		}
		r := o.open(id)
		if r == nil || r.single() && o.hasParts(id) && !o.proved(r) {
			continue
		}
		return r
	}
	return nil
}

// open returns a run, or nil if it cannot be read.
func (o *opening) open(id runID) *run {
	if r := o.runs[id]; r != nil || o.failed[id] != nil {
		return r
	}
	r, err := o.db.openRun(id, o.seconds[id])
	if err != nil {
		o.failed[id] = err
		return nil
	}
	o.runs[id] = r
	return r
}

// proved proves a merged run whose parts exist: either must be complete before the other
// is removed.
func (o *opening) proved(r *run) bool {
	err := o.db.prove(r)
	if err == nil {
		return true
	}
	delete(o.runs, r.id)
	o.failed[r.id] = errors.Join(err, r.close())
	return false
}

// single reports whether a copy of the run is missing.
func (r *run) single() bool {
	return slices.ContainsFunc(r.copies, func(c runCopy) bool { return c.file == nil })
}

// hasParts reports whether the parts of a merged run can be read.
func (o *opening) hasParts(whole runID) bool {
	next := whole.from
	for _, id := range o.ids {
		if id != whole && id.from == next && id.to <= whole.to && o.open(id) != nil {
			next = id.to + 1
		}
	}
	return next == whole.to+1
}

// why returns why checkpoints are lost: the errors of the runs that would have some of
// them.
func (o *opening) why(lost runID) error {
	var errs []error
	for _, id := range o.ids {
		if o.failed[id] != nil && id.from <= lost.to && lost.from <= id.to {
			errs = append(errs, o.failed[id])
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return &DamagedError{
		File: o.db.path(lost.fileName()),
		Err:  fmt.Errorf("checkpoints %d to %d are missing: %w", lost.from, lost.to, fs.ErrNotExist),
	}
}

// closeOthers closes the runs that were opened and are not used: all of them after an
// error.
func (o *opening) closeOthers(runs []*run, err error) {
	for _, r := range o.runs {
		if err != nil || !slices.Contains(runs, r) {
			o.db.noteError(r.name, r.close())
		}
	}
}

// undecided reports whether an error means that this process cannot open a file, or does
// not know its format: it says nothing against what is in it.
func undecided(err error) bool {
	for _, of := range []error{errVersion, fs.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// Unneeded returns why files of checkpoints after the newest readable one cannot be read,
// whose rows Options.Unneeded has proved not to be needed; nil if there are none.
func (db *DB) Unneeded() error { return db.unneeded }

// findObsolete lists the files that are not of runs: unfinished and merged ones, and
// those that cannot be read and are not needed.
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
