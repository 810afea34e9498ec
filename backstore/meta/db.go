package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/backstore/vfs"
)

// DefaultCopies is the default number of copies of each file.
const DefaultCopies = 2

// DefaultMergeFloor is small compared with the rows of a store in use.
const DefaultMergeFloor = 4 << 20

// Options configure a DB.
type Options struct {
	FS      vfs.FS
	Dir     string // must exist
	StoreID [16]byte
	// Copies is the number of copies of each new file, 1 or 2; 0 means DefaultCopies.
	Copies int
	// ReadOnly changes and creates no file. Damaged data is still read from the other
	// copy.
	ReadOnly bool
	// CacheBytes bounds the cached tables.
	CacheBytes int64
	Log        *logrus.Entry
	// Reserve has files for a full disk. It may be nil.
	Reserve Reserve
	// Mended, if not nil, is called after damage of a file is repaired.
	Mended func(file string, why error)
	// MergeFloor is the minimum number of bytes of changes to merge with all rows; 0
	// means DefaultMergeFloor.
	MergeFloor int64
	// Slack is the number of bytes that merges leave free on the file system.
	Slack int64
	// Unneeded, if not nil, is called by Open if files have the names of checkpoints after
	// the newest one that can be read, and cannot be read. It reports whether the rows
	// that can be read suffice: the files are then not needed, whatever they were.
	Unneeded func(Reader) (bool, error)
}

// DB is an ordered map of rows, stored as a list of immutable runs: the rows changed by
// one or several checkpoints. It is safe for concurrent use.
//
// Every run has two files with equal bytes. Data damaged in one is read from the other
// and repaired. For data damaged in both, the keys are known: reads of those return
// ErrDamaged, and all other rows are readable.
type DB struct {
	o     Options
	cache *tableCache
	stats counters

	storing sync.Mutex // held while a checkpoint is stored
	merging sync.Mutex // held while files are merged or removed

	mu       sync.Mutex // guards the fields below, and the refs of runs
	current  *version
	next     uint64 // number of the next checkpoint
	closed   bool
	unread   chan struct{} // closed when a version has no readers; nil if no caller waits
	readers  sync.WaitGroup
	obsolete map[string]obsolete // files replaced by newer ones
	noted    map[string]bool     // damage that was logged
	settled  bool                // files may be changed
	mends    []mend              // to be done by Settle

	unneeded error // set by Open
}

// mend is a change of a copy that waits for Settle.
type mend struct {
	run    *run
	change func() // the run is locked
}

// maxMends bounds the changes that wait for Settle. What is damaged elsewhere is found
// again when it is read, or by a scrub.
const maxMends = 256

// version is the list of runs at a point in time, oldest first.
type version struct {
	runs []*run
	refs int // guarded by DB.mu
}

// obsolete is the run of an obsolete file, nil if none was read from it.
type obsolete struct {
	run  *run
	kept bool // the file is of the reserve
	// tried: it could not be removed, though the runs that replace it were verified.
	tried bool
}

type counters struct {
	checkpoints, merges, mended, damaged atomic.Int64
}

// Stats are statistics since the DB was opened.
type Stats struct {
	// Runs is the number of runs, and Bytes the length of all their files.
	Runs  int
	Bytes int64
	Rows  int64 // including older versions of rows and deletions
	// Bytes written by checkpoints, by merges, and by repairs.
	CheckpointBytes, MergeBytes, MendedBytes int64
	// Damaged is the number of damaged pieces of files found.
	Damaged int64
}

// Open opens the rows in o.Dir. It changes no file: see Settle. The error is ErrDamaged,
// with the files, if files are missing or damaged in every copy.
func Open(o Options) (*DB, error) {
	if o.Copies == 0 {
		o.Copies = DefaultCopies
	}
	if o.MergeFloor == 0 {
		o.MergeFloor = DefaultMergeFloor
	}
	if o.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(l)
	}
	if o.Mended == nil {
		o.Mended = func(string, error) {}
	}
	if o.Reserve == nil {
		o.Reserve = noReserve{o.FS}
	}
	db := &DB{o: o, cache: newTableCache(max(o.CacheBytes, 1<<20)), noted: make(map[string]bool), obsolete: make(map[string]obsolete)}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	runs, tail, err := db.openRuns(names)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	for _, r := range runs {
		r.refs = 1
	}
	db.current = &version{runs: runs, refs: 1}
	if err := db.judgeTail(tail); err != nil {
		return nil, errors.Join(fmt.Errorf("open metadata: %w", err), db.Close())
	}
	db.noteLost()
	o.Reserve.Lent(keptCopies(runs))
	return db, nil
}

// Settle permits changes of files, once the owner of the rows has opened all that belongs
// to them: it repairs the damage found so far.
func (db *DB) Settle() {
	db.mu.Lock()
	mends := db.mends
	db.settled, db.mends = true, nil
	db.mu.Unlock()
	for _, m := range mends {
		m.run.mu.Lock()
		m.change()
		m.run.mu.Unlock()
	}
}

// change calls fn, which changes a copy of r, now or in Settle. r is locked.
func (db *DB) change(r *run, fn func()) {
	db.mu.Lock()
	settled := db.settled
	if !settled && !db.o.ReadOnly && len(db.mends) < maxMends {
		db.mends = append(db.mends, mend{r, fn})
	}
	db.mu.Unlock()
	if settled && !db.o.ReadOnly {
		fn()
	}
}

func (db *DB) path(name string) string { return filepath.Join(db.o.Dir, name) }

// Last returns the number of the newest checkpoint, or 0.
func (db *DB) Last() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.current.last()
}

func (v *version) last() uint64 {
	if len(v.runs) == 0 {
		return 0
	}
	return v.runs[len(v.runs)-1].id.to
}

func (db *DB) acquire() (*version, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	db.readers.Add(1)
	db.current.refs++
	return db.current, nil
}

func (db *DB) release(v *version) {
	db.mu.Lock()
	err := db.drop(v)
	db.mu.Unlock()
	db.readers.Done()
	db.noteError(db.o.Dir, err)
}

// drop releases the runs of a version without readers. db.mu is held.
func (db *DB) drop(v *version) error {
	if v.refs--; v.refs > 0 {
		return nil
	}
	if db.unread != nil {
		close(db.unread)
		db.unread = nil
	}
	var errs []error
	for _, r := range v.runs {
		if r.refs--; r.refs == 0 {
			db.cache.forget(r)
			errs = append(errs, r.close())
		}
	}
	return errors.Join(errs...)
}

// install replaces the current list of runs by the result of change.
func (db *DB) install(change func(runs []*run) []*run) {
	db.mu.Lock()
	v := &version{runs: change(slices.Clone(db.current.runs)), refs: 1}
	for _, r := range v.runs {
		r.refs++
	}
	old := db.current
	db.current = v
	err := db.drop(old)
	db.mu.Unlock()
	db.o.Reserve.Lent(keptCopies(v.runs))
	db.noteError(db.o.Dir, err)
}

// Get implements Reader.
func (db *DB) Get(key []byte) ([]byte, error) {
	v, err := db.acquire()
	if err != nil {
		return nil, err
	}
	defer db.release(v)
	return view{db, v}.Get(key)
}

// Scan implements Reader.
func (db *DB) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return db.View(func(r Reader) error { return r.Scan(prefix, fn) })
}

// View calls fn with a point-in-time view of the rows. The Reader is valid only during
// the call.
func (db *DB) View(fn func(Reader) error) error {
	v, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(v)
	return fn(view{db, v})
}

// view reads one version.
type view struct {
	db *DB
	v  *version
}

// Get searches the runs from the newest on. A run whose index lacks the key has neither
// the row nor its deletion.
func (w view) Get(key []byte) ([]byte, error) {
	for i := len(w.v.runs) - 1; i >= 0; i-- {
		r := w.v.runs[i]
		if r.lost != nil {
			return nil, rowDamage(r, key, r.lost)
		}
		t := tableFor(r.tables, key)
		if t < 0 {
			continue
		}
		at, deleted, ok := r.tables[t].find(key)
		if !ok {
			continue
		}
		if deleted {
			return nil, ErrNotFound
		}
		rows, err := w.db.rows(r, t)
		if err != nil {
			return nil, rowDamage(r, key, err)
		}
		body, err := openRow(r, &rows[at], key)
		return append([]byte{}, body...), err
	}
	return nil, ErrNotFound
}

// rows returns the rows of a table, cached if possible.
func (db *DB) rows(r *run, t int) ([]row, error) {
	k := tableKey{r, t}
	if rows, ok := db.cache.get(k); ok {
		return rows, nil
	}
	rows, err := db.readTable(r, t)
	if err != nil {
		return nil, err
	}
	db.cache.put(k, rows)
	return rows, nil
}

// openRow verifies the key of a row and returns its body.
func openRow(r *run, row *row, key []byte) ([]byte, error) {
	if !bytes.Equal(row.key, key) {
		return nil, rowDamage(r, key, errSeal)
	}
	body, err := unseal(key, row.sealed)
	if err != nil {
		return nil, rowDamage(r, key, err)
	}
	return body, nil
}

func rowDamage(r *run, key []byte, err error) error {
	var d *DamagedError
	if errors.As(err, &d) {
		return &DamagedError{File: d.File, Key: bytes.Clone(key), Err: d.Err}
	}
	return &DamagedError{File: r.name, Key: bytes.Clone(key), Err: err}
}

// Stats returns statistics.
func (db *DB) Stats() Stats {
	db.mu.Lock()
	runs := db.current.runs
	db.mu.Unlock()
	st := Stats{
		Runs: len(runs), CheckpointBytes: db.stats.checkpoints.Load(), MergeBytes: db.stats.merges.Load(),
		MendedBytes: db.stats.mended.Load(), Damaged: db.stats.damaged.Load(),
	}
	for _, r := range runs {
		r.mu.Lock()
		for i := range r.copies {
			st.Bytes += max(r.size, r.copies[i].length)
		}
		r.mu.Unlock()
		st.Rows += int64(r.rows + r.deletions)
	}
	return st
}

// Close waits for readers and closes the files.
func (db *DB) Close() error {
	db.storing.Lock()
	defer db.storing.Unlock()
	db.merging.Lock()
	defer db.merging.Unlock()
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return ErrClosed
	}
	db.closed = true
	db.mu.Unlock()
	db.readers.Wait()
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.drop(db.current)
}

// maxNoted bounds the list of damage already logged.
const maxNoted = 1000

// noteDamage counts damage and logs it once.
func (db *DB) noteDamage(name string, off int64, err error) {
	db.stats.damaged.Add(1)
	db.mu.Lock()
	key := fmt.Sprint(name, off)
	known := db.noted[key]
	if len(db.noted) < maxNoted {
		db.noted[key] = true
	}
	db.mu.Unlock()
	if !known {
		db.o.Log.WithError(err).WithField("file", name).WithField("offset", off).Error("metadata is damaged")
	}
}

// warnOnce logs a harmless error once per file and text.
func (db *DB) warnOnce(name, text string, err error) {
	db.mu.Lock()
	key := text + " " + name
	known := db.noted[key]
	if len(db.noted) < maxNoted {
		db.noted[key] = true
	}
	db.mu.Unlock()
	if !known {
		db.o.Log.WithError(err).WithField("file", name).Warn(text)
	}
}

// noteError logs an error of a file that no caller receives.
func (db *DB) noteError(name string, err error) {
	if err != nil {
		db.o.Log.WithError(err).WithField("file", name).Warn("metadata file")
	}
}
