package vhd

import (
	"context"
	"sync"

	"odx/backstore"
	"odx/vhd/disk"
)

// lineage remembers what each file that has a format says of its parent, so that the
// children of a disk are found without opening every file. A file says the same for all
// its life, whatever is written to the disk in it; only who writes to the file itself
// changes it, and calls forget.
type lineage struct {
	mu sync.Mutex // of what follows
	// parents are by identity of the file; nil of a disk without one, or of no disk.
	parents map[[16]byte]*disk.Parent
	// forgotten counts calls of forget: what was read before one is not remembered.
	forgotten uint64
}

// parentOf returns what a file says of its parent, nil if it has none.
func (l *lineage) parentOf(ctx context.Context, f *backstore.Volume, format disk.Format) (*disk.Parent, error) {
	l.mu.Lock()
	p, ok := l.parents[f.ID()]
	began := l.forgotten
	l.mu.Unlock()
	if ok {
		return p, nil
	}
	info, err := probe(ctx, format, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && info.Kind == disk.Differencing {
		p = info.Parent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if began == l.forgotten {
		l.parents[f.ID()] = p
	}
	return p, nil
}

// forget drops what is known of a file whose bytes were written.
func (l *lineage) forget(id [16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.parents, id)
	l.forgotten++
}

// keep drops what is known of files that are gone, when that is most of it.
func (l *lineage) keep(files []*backstore.Volume) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.parents) <= 2*len(files) {
		return
	}
	kept := make(map[[16]byte]*disk.Parent, len(files))
	for _, f := range files {
		if p, ok := l.parents[f.ID()]; ok {
			kept[f.ID()] = p
		}
	}
	l.parents = kept
}
