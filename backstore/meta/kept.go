package meta

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"odx/backstore/vfs"
)

// Reserve has files with allocated blocks for runs on a full disk. They are renamed
// when used, and returned at full length: another program could take truncated blocks.
// So a run in such a file, a kept run, is followed by bytes without meaning and a
// second trailer.
type Reserve interface {
	// Create creates a file with blocks for FileBytes bytes. kept reports that it is of
	// the reserve; other files are truncated to their length.
	Create(name string) (f vfs.File, kept bool, err error)
	// Give removes a file, whose blocks the reserve may keep. It returns fs.ErrNotExist
	// if the file does not exist.
	Give(name string) error
	// Lent sets the number of files of the reserve in use.
	Lent(files int)
	// Len is the number of files in the reserve.
	Len() int
	// FileBytes is the number of bytes of a file that need no free block.
	FileBytes() int64
}

// noReserve is a Reserve without files.
type noReserve struct{ vfs.FS }

func (r noReserve) Create(name string) (vfs.File, bool, error) {
	f, err := r.FS.Create(name)
	return f, false, err
}

func (r noReserve) Give(name string) error { return r.Remove(name) }
func (r noReserve) Lent(int)               {}
func (r noReserve) Len() int               { return 0 }
func (r noReserve) FileBytes() int64       { return 0 }

// giveUp removes a file that may not exist.
func (db *DB) giveUp(name string) error {
	if err := db.o.Reserve.Give(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// remove is giveUp for a file that may have readers.
func (db *DB) remove(name string) error {
	if err := db.o.FS.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// output is a file that a run is written to.
type output struct {
	vfs.File
	kept  bool
	bytes int64 // bytes with blocks, if it is kept
}

// create creates a file for a copy of a run.
func (db *DB) create(name string) (output, error) {
	f, kept, err := db.o.Reserve.Create(name)
	return output{f, kept, db.o.Reserve.FileBytes()}, err
}

// end makes the file of a complete run durable, and returns its length: that of the
// run, or of a kept file.
func (f *output) end(l *layout) (length int64, err error) {
	length = l.size
	if f.kept {
		size, err := f.Size()
		if err != nil {
			return 0, err
		}
		length = max(l.size, roundUp(max(size, f.bytes)))
	}
	if length > l.size {
		trailer := l.trailer()
		if _, err := f.WriteAt(append(trailer, trailer...), length-2*blockLength); err != nil {
			return 0, err
		}
	} else if err := f.Truncate(length); err != nil { // it may be longer
		return 0, err
	}
	return length, f.Sync()
}

// keptCopies is the number of files of runs that are of the reserve.
func keptCopies(runs []*run) (n int) {
	for _, r := range runs {
		r.mu.Lock()
		for i := range r.copies {
			if r.copies[i].file != nil && r.copies[i].kept {
				n++
			}
		}
		r.mu.Unlock()
	}
	return n
}

// joins returns which of the newest runs become one with a checkpoint of about
// expect bytes in so many copies, each choice that there is, the best one first. With room on the disk
// it is none of them: they are merged in the background. On a full disk that would
// need blocks that are not there, so the checkpoint takes in the runs of the last ones,
// whose files then go back to the reserve: there are always as many in it as the
// next checkpoint needs.
func (db *DB) joins(runs []*run, expect int64, copies int) [][]*run {
	pool, first := db.o.Reserve, len(runs)
	for first > 0 && !runs[first-1].damaged.Load() {
		first--
	}
	var choices [][]*run
	for i := len(runs); i >= first; i-- {
		left := pool.Len() - copies + keptCopies(runs[i:])
		fits := i == len(runs) || db.joined(runs[i:])+expect <= pool.FileBytes()
		if fits && left >= copies {
			choices = append(choices, runs[i:])
		}
	}
	if len(runs) > 2*mergeRuns {
		slices.Reverse(choices) // there are to be fewer of them
	}
	return choices
}

// joined returns the approximate length of several runs merged into one.
func (db *DB) joined(runs []*run) int64 {
	sum := int64(0)
	for _, r := range runs {
		sum += r.size
	}
	if sum <= db.o.Reserve.FileBytes()/2 || sum > joinedPart*db.o.Reserve.FileBytes() {
		return sum // an exact value is not needed
	}
	total := int64(smallestRun)
	for m := newMerge(db, runs, nil); ; {
		c := m.least()
		if c == nil {
			return total
		}
		ref := &c.run.tables[c.t]
		total += 4 * int64(len(c.keys.key))
		if !c.keys.deleted {
			total += int64(ref.length) / int64(ref.live)
		}
		m.skip(c)
	}
}

// joinedPart bounds, as a multiple of a file of the reserve, the runs whose keys are
// walked to see whether they fit into one.
const joinedPart = 8

// full reports whether the disk has no room for the files of a checkpoint and a merge
// after it.
func (db *DB) full(runs []*run) bool {
	if db.o.Reserve.FileBytes() == 0 {
		return false
	}
	free, err := db.o.FS.Free(db.o.Dir)
	return err != nil || free < int64(db.o.Copies)*db.o.Reserve.FileBytes()+db.o.Slack || keptCopies(runs) > 0
}

// storeFull stores a checkpoint where there is no room for its files, as one run with
// some of those before it.
func (db *DB) storeFull(runs []*run, last uint64, rows func(put func(Op) error) error) (err error) {
	// Replaced or unfinished runs may be in files of the reserve.
	db.awaitReaders()
	if err := db.removeObsolete(context.Background(), runs); err != nil {
		db.noteError(db.o.Dir, err)
	}
	again, size, err := collect(rows)
	if err != nil {
		return err
	}
	for copies := db.o.Copies; copies > 0; copies-- { // one is better than none: Tidy makes the other
		for _, with := range db.joins(runs, size, copies) {
			if err = db.storeWith(with, last, copies, again); !noSpace(err) {
				return err
			}
		}
	}
	return db.storeWith(nil, last, db.o.Copies, again)
}

// collect keeps the rows of a checkpoint in memory, which are put only once: on a
// full disk a file of the reserve has to take them, which bounds them. It returns what
// puts them as often as it is called, and about how many bytes they take.
func collect(rows func(put func(Op) error) error) (again func(put func(Op) error) error, size int64, err error) {
	var ops []Op
	err = rows(func(op Op) error {
		size += int64(4*len(op.Key) + len(op.Value))
		ops = append(ops, Op{Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value)})
		return nil
	})
	return func(put func(Op) error) error {
		for _, op := range ops {
			if err := put(op); err != nil {
				return err
			}
		}
		return nil
	}, size, err
}

// readersTime bounds the wait of a checkpoint on a full disk for readers of replaced
// runs.
const readersTime = 5 * time.Second

// awaitReaders waits until files to be returned to the reserve have no readers, or for
// readersTime: a reader may be waiting for this checkpoint.
func (db *DB) awaitReaders() {
	end := time.NewTimer(readersTime)
	defer end.Stop()
	for {
		db.mu.Lock()
		read := false
		for _, old := range db.obsolete {
			read = read || old.kept && old.run != nil && old.run.refs > 0
		}
		if db.unread == nil {
			db.unread = make(chan struct{})
		}
		unread := db.unread
		db.mu.Unlock()
		if !read {
			return
		}
		select {
		case <-unread:
		case <-end.C:
			return
		}
	}
}

// storeWith stores a checkpoint as one run with those of runs, the newest ones.
func (db *DB) storeWith(runs []*run, last uint64, copies int, rows func(put func(Op) error) error) error {
	id := runID{last, last}
	if len(runs) > 0 {
		id.from = runs[0].id.from
	} else {
		id.from = db.Last() + 1
	}
	r, err := db.write(id, copies, joining(db, id, runs, rows))
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		if err := db.prove(r); err != nil {
			r.close()
			db.forgetFiles(r, nil)
			return err
		}
		db.replaced(runs)
	}
	if copies < db.o.Copies {
		r.copies = append(r.copies, runCopy{name: r.name + copySuffix})
	}
	db.stats.checkpoints.Add(r.size * int64(len(r.copies)))
	db.install(func(current []*run) []*run { return append(current[:len(current)-len(runs)], r) })
	return db.removeObsolete(context.Background(), nil)
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
