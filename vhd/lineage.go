package vhd

import (
	"context"
	"errors"
	"sync"

	"odx/backstore"
	"odx/vhd/disk"
)

// lineage remembers the parent that each file with a format names, so that the children
// of a disk are found without opening every file. Writes to the disk in a file do not
// change its parent; writes to the file itself do, and their writer calls forget.
type lineage struct {
	// reading is a semaphore: concurrent callers share the reads of one of them.
	reading chan struct{}

	mu    sync.Mutex // guards files
	files map[descentKey]*descent
}

// descentKey is the identity of a file, and the format of its name.
type descentKey struct {
	id     [16]byte
	format disk.Format
}

// descent is the parent of a file, nil of a disk without one, or of no valid disk. It is
// not known while it is read.
type descent struct {
	known  bool
	parent *disk.Parent
}

func newLineage() *lineage {
	return &lineage{reading: make(chan struct{}, 1), files: map[descentKey]*descent{}}
}

// parentOf returns the parent of a file, which read reads unless it is known. An error
// of read is returned, and not remembered.
func (l *lineage) parentOf(ctx context.Context, key descentKey, read func() (*disk.Parent, error)) (*disk.Parent, error) {
	if d := l.lookup(key); d.known {
		return d.parent, nil
	}
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d := l.lookup(key); d.known {
		return d.parent, nil
	}
	d := &descent{}
	l.mu.Lock()
	l.files[key] = d
	l.mu.Unlock()
	p, err := read()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// If the file was forgotten in the meantime, d is not in files any more.
	*d = descent{true, p}
	return p, nil
}

func (l *lineage) lookup(key descentKey) descent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.files[key]; d != nil {
		return *d
	}
	return descent{}
}

// forget drops the entries of a file whose bytes were written.
func (l *lineage) forget(id [16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, format := range []disk.Format{disk.VHD, disk.VHDX} {
		delete(l.files, descentKey{id, format})
	}
}

// keep drops the entries of deleted files, if they are the majority.
func (l *lineage) keep(files []*backstore.Volume) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) <= 2*len(files) {
		return
	}
	kept := make(map[descentKey]*descent, len(files))
	for _, f := range files {
		key := descentKey{f.ID(), FormatOf(f.Name())}
		if d := l.files[key]; d != nil {
			kept[key] = d
		}
	}
	l.files = kept
}

// parentOf returns the parent that a file names, nil without one.
func (m *Manager) parentOf(ctx context.Context, f *backstore.Volume) (*disk.Parent, error) {
	format := FormatOf(f.Name())
	return m.lineage.parentOf(ctx, descentKey{f.ID(), format}, func() (*disk.Parent, error) {
		info, err := probe(ctx, format, f)
		switch {
		case errors.Is(err, disk.ErrFormat):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return info.Parent, nil
	})
}
