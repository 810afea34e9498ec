// Package reserve keeps files whose blocks are assigned, for what has to be
// written when the file system has no free block left. They are renamed into use.
// Space that is only measured may be taken by another program before it is used;
// this may not.
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
	newName = "new"
)

// Options of Open.
type Options struct {
	FS    vfs.FS
	Dir   string // created if missing
	Bytes int64  // of each file
	Files int    // how many
}

// Pool is a set of files of one length. Its methods may be called concurrently.
type Pool struct {
	o Options

	mu     sync.Mutex // guards what follows
	files  []string   // whose blocks are assigned, durably
	found  []string   // those of files that Open found, until Fill has proved them
	lent   int        // how many are in use
	number uint64     // of the newest file
}

// Open finds the files that an earlier process left. It changes nothing: see Fill.
func Open(o Options) (*Pool, error) {
	p := &Pool{o: o}
	names, err := o.FS.List(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, suffix)
		number, err := strconv.ParseUint(digits, 16, 64)
		if !ok || err != nil {
			continue
		}
		p.files = append(p.files, name)
		p.number = max(p.number, number)
	}
	p.found = slices.Clone(p.files)
	return p, nil
}

// Full reports whether no file is missing.
func (p *Pool) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files) >= p.wanted()
}

// MissingBytes is how many bytes Fill would need.
func (p *Pool) MissingBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(max(p.wanted()-len(p.files), 0)) * p.o.Bytes
}

// wanted is how many files there are to be: those in use come back when others take
// their place, for which half of the reserve is enough. mu is held.
func (p *Pool) wanted() int { return max(p.o.Files-p.lent, p.o.Files/2) }

// Lent says how many files from Create that were to be kept are in use.
func (p *Pool) Lent(files int) {
	p.mu.Lock()
	p.lent = files
	p.mu.Unlock()
}

// Len returns how many files there are.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files)
}

// Bytes is the length that the files have together.
func (p *Pool) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.files)) * p.o.Bytes
}

// FileBytes is how many bytes a file from Create takes without a free block.
func (p *Pool) FileBytes() int64 { return p.o.Bytes }

// Fill makes the files that are missing. An error, ENOSPC for example, leaves
// those that were made.
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

// prove assigns the blocks of files that were found, which costs nothing where they
// have them, and forgets those for which there are none. mu is held.
func (p *Pool) prove() {
	for _, name := range p.found {
		f, err := p.o.FS.Open(filepath.Join(p.o.Dir, name))
		if err == nil {
			err = errors.Join(p.assign(f), f.Close())
		}
		if err != nil {
			_ = p.o.FS.Remove(filepath.Join(p.o.Dir, name)) // it is of no use
			p.files = slices.DeleteFunc(p.files, func(f string) bool { return f == name })
		}
	}
	p.found = nil
}

// add makes a file. mu is held.
func (p *Pool) add() error {
	name := filepath.Join(p.o.Dir, newName)
	if err := p.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := p.o.FS.Create(name)
	if err != nil {
		return err
	}
	err = errors.Join(p.keep(f, name), f.Close())
	if err != nil {
		return errors.Join(err, ignoreMissing(p.o.FS.Remove(name)))
	}
	return nil
}

// keep assigns the blocks of a file and makes it one of the reserve. Its name is
// changed last: a file that has it is whole. mu is held.
func (p *Pool) keep(f vfs.File, name string) error {
	if err := p.assign(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	p.number++
	base := fmt.Sprintf("%016x%s", p.number, suffix)
	if err := p.o.FS.Rename(name, filepath.Join(p.o.Dir, base)); err != nil {
		return err
	}
	p.files = append(p.files, base)
	return p.o.FS.SyncDir(p.o.Dir)
}

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
	if err = f.Allocate(size); full(err) {
		err = f.Truncate(p.o.Bytes)
	}
	return err
}

// Create makes a file of which the first FileBytes bytes have blocks: a new one,
// or one of the reserve when the file system has not that many. One that was given
// back has its old bytes until they are overwritten, and can be longer: it has blocks
// up to its end. A new file is for the caller to
// truncate to what it has written; one of the reserve (kept) is not, since another
// program could take the blocks after that, and comes back by Give. The name is
// durable after a SyncDir of its directory, as with a plain Create.
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

// take renames a file of the reserve into use; nil when there is none.
func (p *Pool) take(name string) (vfs.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.files)
	if n == 0 {
		return nil, nil
	}
	if err := p.o.FS.Rename(filepath.Join(p.o.Dir, p.files[n-1]), name); err != nil {
		return nil, fmt.Errorf("use the reserve: %w", err)
	}
	p.found = slices.DeleteFunc(p.found, func(f string) bool { return f == p.files[n-1] })
	p.files = p.files[:n-1]
	f, err := p.o.FS.Open(name)
	if err != nil {
		return nil, fmt.Errorf("use the reserve: %w", err)
	}
	return f, nil
}

// Give removes a file that is needed no more. While the reserve is not full its
// blocks stay in it; other programs cannot take them in between.
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

// notFull returns err unless it means a full file system.
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
