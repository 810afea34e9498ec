// Package reserve keeps files with allocated blocks for writes on a full file system. A
// file is renamed when it is used. Other programs can take free space between a check
// and its use; they cannot take allocated blocks.
package reserve

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"odx/backstore/vfs"
)

const (
	suffix  = ".reserve"
	newName = "new" // of a file that has no number yet
	// newNames bounds the names that are tried for it.
	newNames = 8
)

// Options of Open.
type Options struct {
	FS    vfs.FS
	Dir   string // created if missing
	Bytes int64  // length of each file
	Files int    // number of files
}

// Pool is a set of files of equal length. It is safe for concurrent use.
type Pool struct {
	o Options

	mu     sync.Mutex // guards the fields below
	files  []string   // files with allocated blocks, durable
	found  []string   // files that Open found, until Fill verifies them
	lent   int        // number of files in use
	number uint64     // of the newest file
}

// Open finds the files of an earlier process. It changes nothing: see Fill.
func Open(o Options) (*Pool, error) {
	p := &Pool{o: o}
	names, err := o.FS.List(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	for _, name := range names {
		number, ok := parseName(name)
		if !ok {
			continue
		}
		p.files = append(p.files, name)
		if number < maxNumber {
			p.number = max(p.number, number)
		}
	}
	p.found = slices.Clone(p.files)
	return p, nil
}

func fileName(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

// maxNumber bounds the numbers that names use up, so that the next one cannot overflow.
const maxNumber = 1 << 62

// parseName is the inverse of fileName. It returns false for other names.
func parseName(name string) (number uint64, ok bool) {
	number, err := strconv.ParseUint(strings.TrimSuffix(name, suffix), 16, 64)
	return number, err == nil && name == fileName(number)
}

// Full reports whether no file is missing.
func (p *Pool) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files) >= p.wanted()
}

// MissingBytes is the number of bytes that Fill needs.
func (p *Pool) MissingBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(max(p.wanted()-len(p.files), 0)) * p.o.Bytes
}

// wanted is the number of files to keep: files in use are returned when others replace
// them, for which half of the reserve suffices. mu is held.
func (p *Pool) wanted() int { return max(p.o.Files-p.lent, p.o.Files/2) }

// Lent sets the number of kept files of Create that are in use.
func (p *Pool) Lent(files int) {
	p.mu.Lock()
	p.lent = files
	p.mu.Unlock()
}

// Len returns the number of files.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files)
}

// Bytes is the total length of the files.
func (p *Pool) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.files)) * p.o.Bytes
}

// FileBytes is the number of bytes of a file from Create that need no free block.
func (p *Pool) FileBytes() int64 { return p.o.Bytes }

// Fill creates the missing files. After an error, for example ENOSPC, it keeps those
// created before.
func (p *Pool) Fill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prove()
	if len(p.files) < p.wanted() {
		if err := p.o.FS.MkdirAll(p.o.Dir); err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
	}
	for len(p.files) < p.wanted() {
		if err := p.add(); err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
	}
	return nil
}

// prove allocates the blocks of found files, which has no cost for allocated ones, and
// drops files without blocks. mu is held.
func (p *Pool) prove() {
	for _, name := range p.found {
		f, err := p.o.FS.Open(filepath.Join(p.o.Dir, name))
		if err == nil {
			err = errors.Join(p.assign(f), f.Close())
		}
		if err != nil {
			_ = p.o.FS.Remove(filepath.Join(p.o.Dir, name)) // without blocks it is useless
			p.files = slices.DeleteFunc(p.files, func(f string) bool { return f == name })
		}
	}
	p.found = nil
}

// add creates a file. mu is held.
func (p *Pool) add() error {
	f, name, err := p.create()
	if err != nil {
		return err
	}
	err = errors.Join(p.keep(f, name), f.Close())
	if err != nil {
		return errors.Join(err, ignoreMissing(p.o.FS.Remove(name)))
	}
	return nil
}

// create creates a file without a number. It passes over names that something has which
// cannot be removed.
func (p *Pool) create() (f vfs.File, name string, err error) {
	for i := range newNames {
		name = filepath.Join(p.o.Dir, newName)
		if i > 0 {
			name += strconv.Itoa(i)
		}
		if err = ignoreMissing(p.o.FS.Remove(name)); err == nil {
			f, err = p.o.FS.Create(name)
			break
		}
	}
	return f, name, err
}

// keep allocates the blocks of a file and adds it to the reserve. It renames the file
// last, so that a file with the name is complete. mu is held.
func (p *Pool) keep(f vfs.File, name string) error {
	if err := p.assign(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	p.number++
	base := fileName(p.number)
	if err := p.o.FS.Rename(name, filepath.Join(p.o.Dir, base)); err != nil {
		return err
	}
	p.files = append(p.files, base)
	return p.o.FS.SyncDir(p.o.Dir)
}

// maxBytes is more than any file that the store gives to the reserve has. A longer one is
// not of the store, and would take blocks that nothing needs.
const maxBytes = 128 << 20

// assign assigns the blocks of a file to all of its length: who uses it may write up
// to its end. What was a segment can be longer than it has to be, and have holes where
// writes failed; it is cut where there are no blocks for these.
func (p *Pool) assign(f vfs.File) error {
	if err := f.Allocate(p.o.Bytes); err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil || size <= p.o.Bytes {
		return err
	}
	if size > max(maxBytes, 2*p.o.Bytes) {
		return f.Truncate(p.o.Bytes)
	}
	if err = f.Allocate(size); full(err) {
		err = f.Truncate(p.o.Bytes)
	}
	return err
}

// Create creates a file whose first FileBytes bytes have blocks: a new file, or one of
// the reserve (kept) if the file system has not enough blocks. A returned file has its
// old bytes until they are overwritten, and can be longer: it has blocks up to its end.
// The caller truncates a new file to its written length. It must not truncate a kept
// one, since other programs could take the freed blocks, and returns it by Give. The
// name is durable after a SyncDir of its directory.
func (p *Pool) Create(name string) (f vfs.File, kept bool, err error) {
	f, err = p.o.FS.Create(name)
	if err != nil && !full(err) {
		return nil, false, err
	}
	if err == nil {
		if err = f.Allocate(p.o.Bytes); err == nil {
			return f, false, nil
		}
		err = errors.Join(err, f.Close(), p.o.FS.Remove(name))
		if !full(err) {
			return nil, false, err
		}
	}
	taken, takeErr := p.take(name)
	if takeErr != nil {
		return nil, false, errors.Join(takeErr, err)
	}
	if taken == nil {
		return nil, false, err
	}
	return taken, true, nil
}

// take renames a file of the reserve to name and returns it, or nil if there is none.
func (p *Pool) take(name string) (vfs.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prove()
	n := len(p.files)
	if n == 0 {
		return nil, nil
	}
	if err := p.o.FS.Rename(filepath.Join(p.o.Dir, p.files[n-1]), name); err != nil {
		return nil, fmt.Errorf("use the reserve: %w", err)
	}
	p.files = p.files[:n-1]
	f, err := p.o.FS.Open(name)
	if err != nil {
		return nil, fmt.Errorf("use the reserve: %w", err)
	}
	return f, nil
}

// Give removes a file that is no longer needed. While the reserve is not full, the file
// returns to it with its blocks, which other programs cannot take.
func (p *Pool) Give(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.files) >= p.wanted() {
		return p.o.FS.Remove(name)
	}
	f, err := p.o.FS.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.o.FS.MkdirAll(p.o.Dir); err != nil {
		return errors.Join(err, p.o.FS.Remove(name))
	}
	if err := p.keep(f, name); err != nil {
		return errors.Join(notFull(err), ignoreMissing(p.o.FS.Remove(name)))
	}
	return nil
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// notFull returns err, or nil if err is that of a full file system.
func notFull(err error) error {
	if full(err) {
		return nil
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
