package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
)

const (
	// mergePart: all runs become one when what checkpoints changed since is
	// more than this part of it. While that happens the files take at most
	// 2 + 2/mergePart + 1 times what one run with all rows takes.
	mergePart = 3
	// mergeRuns is how many runs of changes there can be before the newest of
	// them become one.
	mergeRuns = 8
)

// Tidy restores missing copies, removes replaced files, and merges runs. It runs in the
// background, concurrently with Store, Get and Scan.
func (db *DB) Tidy(ctx context.Context) error {
	if db.o.ReadOnly {
		return nil
	}
	db.merging.Lock()
	defer db.merging.Unlock()
	v, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(v)
	if err := db.restoreCopies(ctx, v.runs); ctx.Err() != nil || err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if err := db.removeObsolete(ctx, v.runs); err != nil {
		return err
	}
	return db.mergeDue(ctx)
}

// ErrNoCopy: a copy of a file was missing, as after a power cut while runs were
// merged, or could not be opened.
var ErrNoCopy = errors.New("it was missing, or could not be opened")

// restoreCopies makes the copies that are missing. Those that cannot be made, where
// something else has the name for example, are noted, and tried again the next time;
// the error joins a DamagedError for each. That the file system has no room for one is
// no damage: the run is whole in the other.
func (db *DB) restoreCopies(ctx context.Context, runs []*run) error {
	var failed damageList
	for _, r := range runs {
		for i := range r.copies {
			r.mu.Lock()
			missing := r.copies[i].file == nil
			r.mu.Unlock()
			if !missing {
				continue
			}
			name, dropped := r.copies[i].name, r.copies[i].dropped
			err := db.restoreCopy(ctx, r, i)
			if ctx.Err() != nil {
				return err
			}
			if err == nil {
				if !dropped {
					db.o.Mended(name, ErrNoCopy)
				}
				continue
			}
			if noSpace(err) {
				db.warnOnce(name, "there is no room for this copy of a metadata file, whose other copy is whole; it is made when there is", err)
				continue
			}
			err = &DamagedError{File: name, Err: fmt.Errorf("this copy cannot be made again: %w", err)}
			db.noteDamage(name, noCopyOffset, err)
			failed.add(err)
		}
	}
	return failed.err()
}

// noCopyOffset stands for the offset of the damage of a copy that cannot be made.
const noCopyOffset = -2

// restoreCopy creates a copy of a run from the others.
func (db *DB) restoreCopy(ctx context.Context, r *run, i int) error {
	name := r.copies[i].name
	if err := db.giveUp(name + newSuffix); err != nil {
		return err
	}
	f, err := db.createCopy(r, name+newSuffix)
	if err != nil {
		return err
	}
	length := int64(0)
	if err = db.copyRun(ctx, r, f); err == nil {
		length, err = f.end(&r.layout)
	}
	if err == nil {
		err = db.o.FS.Rename(name+newSuffix, name)
	}
	if err == nil {
		err = db.o.FS.SyncDir(db.o.Dir)
	}
	if err != nil {
		remove := db.remove
		if f.kept {
			remove = db.giveUp
		}
		return errors.Join(err, f.Close(), remove(name+newSuffix))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.copies[i]
	c.file, c.kept, c.length, c.dropped = f.File, f.kept, length, false
	return nil
}

// createCopy makes a file for the copy of a run that is there. It leaves in the
// reserve what the next checkpoint needs.
func (db *DB) createCopy(r *run, name string) (output, error) {
	if db.o.Reserve.Len() > db.o.Copies && r.size <= db.o.Reserve.FileBytes() {
		return db.create(name)
	}
	f, err := db.o.FS.Create(name)
	return output{File: f}, err
}

// copyRun writes the bytes of a run to a file. It copies lost tables as they are.
func (db *DB) copyRun(ctx context.Context, r *run, f output) error {
	for at := range r.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		ref := &r.tables[at]
		b, err := db.readPart(r, ref.off, int(ref.length), ref.crc)
		if err != nil {
			b = r.unverified(ref)
		}
		if _, err := f.WriteAt(b, ref.off); err != nil {
			return err
		}
	}
	for _, p := range r.parts() {
		if _, err := f.WriteAt(p.data, p.off); err != nil {
			return err
		}
	}
	return nil
}

// unverified returns the bytes of a table of any copy, without verification.
func (r *run) unverified(ref *tableRef) []byte {
	b := make([]byte, ref.length)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.copies {
		if c.file == nil {
			continue
		}
		if _, err := c.file.ReadAt(b, ref.off); err == nil {
			break
		}
	}
	return b
}

// prove reads every table of every copy of a run and repairs damaged ones. The error is
// ErrDamaged if one is lost.
func (db *DB) prove(r *run) error {
	for at := range r.tables {
		if err := db.proveTable(r, at); err != nil {
			return err
		}
	}
	return nil
}

// removeObsolete removes files of replaced runs, after verifying the runs that replace
// them. Files that cannot be removed are harmless and retried at the next call.
func (db *DB) removeObsolete(ctx context.Context, runs []*run) error {
	files, verified := db.removable()
	if len(files) == 0 {
		return nil
	}
	if !verified {
		for _, r := range runs {
			if err := errors.Join(db.prove(r), ctx.Err()); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err := db.removeFile(name, files[name])
		db.mu.Lock()
		if err == nil {
			delete(db.obsolete, name)
		} else {
			old := db.obsolete[name]
			old.tried = true
			db.obsolete[name] = old
		}
		db.mu.Unlock()
		if err != nil {
			// another object that cannot be removed has its name
			db.warnOnce(name, "a file that is not needed any more cannot be removed; it is left, and tried again", err)
		}
	}
	return db.o.FS.SyncDir(db.o.Dir)
}

// removable returns the obsolete files that may be removed, and which have readers.
// verified: the runs that replace them were verified before.
func (db *DB) removable() (files map[string]bool, verified bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	files, verified = make(map[string]bool), true
	for name, old := range db.obsolete {
		read := old.run != nil && old.run.refs > 0
		if read && old.kept {
			continue // it returns to the reserve, and is overwritten, when it has no readers
		}
		files[name] = read
		verified = verified && old.tried
	}
	return files, verified
}

// removeFile removes an obsolete file. One of another store stays where it is.
func (db *DB) removeFile(name string, read bool) error {
	if id, ok := storeID(db.o.FS, name); ok && id != db.o.StoreID {
		db.warnOnce(name, "a file that is not needed is left where it is", fmt.Errorf("it belongs to store %x", id))
		return nil
	}
	if read {
		return db.remove(name)
	}
	return db.giveUp(name)
}

// mergeDue merges runs while there are too many of them, or too many bytes in them.
func (db *DB) mergeDue(ctx context.Context) error {
	for {
		db.mu.Lock()
		runs := slices.Clone(db.current.runs)
		db.mu.Unlock()
		first, end := db.pickMerge(runs)
		if end-first < 2 {
			return nil
		}
		need := db.o.Slack
		for _, r := range runs[first:end] {
			need += r.size
		}
		if free, err := db.o.FS.Free(db.o.Dir); err != nil || free < need {
			return err // retried later: nothing depends on it
		}
		if err := db.merge(ctx, runs[first:end]); err != nil {
			return err
		}
	}
}

// pickMerge returns the range of runs to merge.
func (db *DB) pickMerge(runs []*run) (first, end int) {
	whole := 0 // runs that nothing can be merged with: they are damaged
	for i, r := range runs {
		if r.damaged.Load() {
			whole = i + 1
		}
	}
	base, changes := int64(math.MaxInt64), runs[whole:]
	if whole == 0 && len(runs) > 0 {
		base, changes = runs[0].size, runs[1:]
	}
	sum := int64(0)
	for _, r := range changes {
		sum += r.size
	}
	if base != math.MaxInt64 && sum > max(db.o.MergeFloor, base/mergePart) {
		return 0, len(runs)
	}
	if len(changes) <= mergeRuns {
		return 0, 0
	}
	end = len(runs)
	first = end - 2
	sum = runs[end-1].size + runs[first].size
	for first > end-len(changes) && runs[first-1].size <= sum {
		first--
		sum += runs[first].size
	}
	return first, end
}

// merge merges consecutive runs into one. At any time two valid copies of their rows
// exist: two of their own, or one of their own and one of the new run.
func (db *DB) merge(ctx context.Context, runs []*run) error {
	id := runID{runs[0].id.from, runs[len(runs)-1].id.to}
	r, err := db.replace(ctx, id, runs, func(put func(key, sealed []byte) error) error { return db.mergeRows(ctx, runs, put) })
	if err != nil {
		return err
	}
	db.stats.merges.Add(r.size * int64(len(r.copies)))
	db.install(func(current []*run) []*run {
		at := slices.Index(current, runs[0])
		return slices.Replace(current, at, at+len(runs), r)
	})
	return db.removeObsolete(ctx, nil)
}

// replace writes a run that replaces others, in all copies. The caller installs it.
func (db *DB) replace(ctx context.Context, id runID, runs []*run, rows func(put func(key, sealed []byte) error) error) (*run, error) {
	r, err := db.write(id, 1, rows)
	if err != nil {
		return nil, err
	}
	if err := db.prove(r); err != nil {
		r.close()
		db.forgetFiles(r, nil)
		return nil, err
	}
	if db.o.Copies > 1 {
		r.copies = append(r.copies, runCopy{name: r.name + copySuffix})
		// The second copy of the new run uses their space.
		err = db.dropSeconds(runs)
		if err == nil {
			err = db.restoreCopy(ctx, r, 1)
		}
	}
	if err != nil {
		r.close()
		db.forgetFiles(r, nil)
		// The runs that it would have replaced get second copies again.
		if rerr := db.restoreCopies(context.WithoutCancel(ctx), runs); rerr != nil {
			db.noteError(db.o.Dir, rerr)
		}
		return nil, err
	}
	db.replaced(runs)
	return r, nil
}

// replaced marks runs as replaced by another run.
func (db *DB) replaced(runs []*run) {
	for _, old := range runs {
		kept := keptCopies([]*run{old}) > 0
		db.mu.Lock()
		for _, c := range old.copies {
			db.obsolete[c.name] = obsolete{run: old, kept: kept}
		}
		db.mu.Unlock()
	}
}

// mergeRows puts the newest version of each row.
func (db *DB) mergeRows(ctx context.Context, runs []*run, put func(key, sealed []byte) error) error {
	all := runs[0].id.from == 1 // no older rows exist, so deletions are dropped
	return db.walk(runs, nil, func(c *cursor) (bool, error) {
		if c.keys.deleted {
			if all {
				return true, nil
			}
			return true, put(c.keys.key, nil)
		}
		row, err := c.row()
		if err == nil {
			_, err = openRow(c.run, row, c.keys.key)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		return true, put(row.key, row.sealed)
	})
}

// dropSeconds removes the second copies of runs.
func (db *DB) dropSeconds(runs []*run) error {
	for _, r := range runs {
		if len(r.copies) < 2 {
			continue
		}
		r.mu.Lock()
		c := &r.copies[1]
		c.dropped = true
		var err error
		if c.file != nil {
			err = c.file.Close()
			c.file = nil
		}
		r.mu.Unlock()
		// It may have readers, so it must not be overwritten.
		if rerr := db.o.FS.Remove(c.name); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		if err != nil {
			return err
		}
	}
	return db.o.FS.SyncDir(db.o.Dir)
}
