package meta

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"
	"sync/atomic"

	"odx/backstore/vfs"
)

// run is an open run. Immutable fields are read without a lock.
type run struct {
	layout
	name   string // path of the first copy
	index  []byte
	tables []tableRef

	// lost is why no copy of the run can be read. A read-only DB continues without it;
	// the run then has no tables. unproved reports that a later run is lost, which may
	// have changed rows of this one.
	lost     *DamagedError
	unproved bool

	refs    int         // number of versions with the run; guarded by DB.mu
	damaged atomic.Bool // a table could not be read from any copy

	mu     sync.Mutex // held while a copy is repaired or replaced; guards copies
	copies []runCopy
}

// runCopy is one of the files of a run.
type runCopy struct {
	name string
	file vfs.File // nil if missing
	// dropped reports that the file was removed to free space for a run that replaces
	// this one.
	dropped bool
	kept    bool  // the file is of the reserve
	length  int64 // of the file; a kept file can be longer than the run
}

// openRun opens the copies of a run. At least one must be valid except for its tables,
// which are verified when they are read; otherwise the error is ErrDamaged.
func (db *DB) openRun(id runID, second bool) (*run, error) {
	r := &run{name: db.path(id.fileName())}
	r.copies = []runCopy{{name: r.name}}
	if second {
		r.copies = append(r.copies, runCopy{name: r.name + copySuffix})
	}
	found := false
	err := error(&DamagedError{File: r.name, Err: errMissing})
	for i := range r.copies {
		c := &r.copies[i]
		f, oerr := db.o.FS.Open(c.name)
		if oerr != nil {
			if !errors.Is(oerr, fs.ErrNotExist) {
				err = &DamagedError{File: c.name, Err: oerr}
			}
			continue
		}
		c.file = f
		l, lerr := readLayout(f)
		if lerr == nil && (l.store != db.o.StoreID || l.id != id) {
			lerr = fmt.Errorf("it is of checkpoints %d to %d of store %x", l.id.from, l.id.to, l.store)
		}
		if lerr == nil && found && l != r.layout {
			r.close()
			return nil, &DamagedError{File: r.name, Err: errors.New("its two copies are whole and differ; remove the one that does not belong here")}
		}
		if lerr != nil {
			err = &DamagedError{File: c.name, Err: lerr}
			continue
		}
		r.layout, found = l, true
	}
	if !found {
		r.close()
		return nil, err
	}
	if err := db.loadIndex(r); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// readLayout reads the trailer of a file.
func readLayout(f vfs.File) (l layout, err error) {
	size, err := f.Size()
	if err != nil {
		return l, err
	}
	if size < smallestRun {
		return l, fmt.Errorf("%w: %d bytes", errTrailer, size)
	}
	b := make([]byte, trailerLength)
	for at := size - blockLength; at >= size-2*blockLength; at -= blockLength {
		if _, err = f.ReadAt(b, at); err != nil {
			continue
		}
		if l, err = decodeTrailer(b); err == nil {
			return l, nil
		}
	}
	return l, err
}

// loadIndex reads a valid copy of the index, and repairs the other copies, headers and
// trailers.
func (db *DB) loadIndex(r *run) error {
	for _, at := range r.layout.index {
		b, err := db.readPart(r, at, int(r.indexLen), r.indexCRC)
		if err != nil {
			continue
		}
		if r.tables, err = decodeIndex(b, blockLength, r.tablesEnd); err != nil {
			return &DamagedError{File: r.name, Err: err}
		}
		r.index = b
		db.mendParts(r)
		return nil
	}
	return &DamagedError{File: r.name, Err: fmt.Errorf("index: %w", errChecksum)}
}

// part is a range of a run with known bytes.
type part struct {
	off  int64
	data []byte
}

// parts returns all ranges of a run except the tables.
func (r *run) parts() []part {
	tail := make([]byte, r.size-r.tablesEnd)
	for _, at := range r.layout.index {
		copy(tail[at-r.tablesEnd:], r.index)
	}
	copy(tail[len(tail)-2*blockLength:], r.trailer())
	copy(tail[len(tail)-blockLength:], r.trailer())
	return []part{{0, r.header()}, {r.tablesEnd, tail}}
}

// mendParts compares the parts of each copy with their known bytes, and repairs them.
func (db *DB) mendParts(r *run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := r.parts()
	for i := range r.copies {
		c := &r.copies[i]
		if c.file == nil {
			continue
		}
		db.mendLength(r, c)
		for _, p := range parts {
			b := make([]byte, len(p.data))
			if _, err := c.file.ReadAt(b, p.off); err != nil || !bytes.Equal(b, p.data) {
				db.mendAt(r, c, p.off, p.data, err)
			}
		}
	}
}

// mendLength repairs the end of the file after the run: nothing, or, in a kept file,
// the trailer again in the last two blocks. The run is locked.
func (db *DB) mendLength(r *run, c *runCopy) {
	size, err := c.file.Size()
	if err != nil || size <= r.size {
		return
	}
	trailer := r.trailer()
	bad := []int64{}
	for _, at := range []int64{size - 2*blockLength, size - blockLength} {
		b := make([]byte, blockLength)
		if _, err := c.file.ReadAt(b, at); err != nil || !bytes.Equal(b, trailer) {
			bad = append(bad, at)
		}
	}
	if len(bad) < 2 && size%blockLength == 0 {
		c.length, c.kept = size, true
		for _, at := range bad {
			db.mendAt(r, c, at, trailer, nil)
		}
		return
	}
	db.noteDamage(c.name, r.size, fmt.Errorf("it has %d bytes", size))
	db.change(r, func() {
		if c.file != nil {
			db.noteError(c.name, c.file.Truncate(r.size))
		}
	})
}

// readPart returns bytes of a run from the first copy that matches the checksum, and
// repairs the other copies. The error is errChecksum if none matches.
func (db *DB) readPart(r *run, off int64, length int, crc uint32) ([]byte, error) {
	b := make([]byte, length)
	// Usually the first copy is valid.
	r.mu.Lock()
	first := r.copies[0].file
	r.mu.Unlock()
	if first != nil && readWhole(first, off, b, crc) == nil {
		return b, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	bad := make(map[int]error)
	for i := range r.copies {
		c := &r.copies[i]
		if c.file == nil {
			continue
		}
		err := readWhole(c.file, off, b, crc)
		if err != nil {
			bad[i] = err
			continue
		}
		for k := range bad {
			db.mendAt(r, &r.copies[k], off, b, bad[k])
		}
		return b, nil
	}
	db.noteDamage(r.name, off, errChecksum)
	r.damaged.Store(true)
	return nil, errChecksum
}

var errSum = errors.New("checksum mismatch")

func readWhole(f vfs.File, off int64, b []byte, crc uint32) error {
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	if crc32.Checksum(b, castagnoli) != crc {
		return errSum
	}
	return nil
}

// mendAt repairs a copy at an offset. The run is locked.
func (db *DB) mendAt(r *run, c *runCopy, off int64, data []byte, why error) {
	if why == nil {
		why = errSum
	}
	db.noteDamage(c.name, off, why)
	db.change(r, func() { db.rewrite(c, off, data, why) })
}

// rewrite writes the bytes that belong at an offset of a copy. The run is locked.
func (db *DB) rewrite(c *runCopy, off int64, data []byte, why error) {
	if c.file == nil {
		return // it is missing by now
	}
	_, err := c.file.WriteAt(data, off)
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		db.noteError(c.name, err)
		return
	}
	db.stats.mended.Add(int64(len(data)))
	db.o.Mended(c.name, why)
}

// readTable returns the verified rows of a table, or ErrDamaged.
func (db *DB) readTable(r *run, at int) ([]row, error) {
	ref := &r.tables[at]
	data, err := db.readPart(r, ref.off, int(ref.length), ref.crc)
	if err != nil {
		return nil, &DamagedError{File: r.name, Err: fmt.Errorf("%d bytes at %d: %w", ref.length, ref.off, err)}
	}
	rows, err := decodeTable(data)
	if err == nil && len(rows) != ref.live {
		err = fmt.Errorf("table at %d has %d rows, its index %d", ref.off, len(rows), ref.live)
	}
	if err != nil {
		return nil, &DamagedError{File: r.name, Err: err}
	}
	return rows, nil
}

// close closes the files of a run without readers. A checkpoint that began before may
// still look at which of them there are.
func (r *run) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for i := range r.copies {
		if f := r.copies[i].file; f != nil {
			errs = append(errs, f.Close())
			r.copies[i].file = nil
		}
	}
	return errors.Join(errs...)
}
