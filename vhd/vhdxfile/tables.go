package vhdxfile

import (
	"sync"
)

// Tables opens virtual disks whose block allocation tables share one bound of memory.
// Of each table the pages that were used last are held. When there is no room for
// another page, one of the disk that holds the most goes. So disks that are used end up
// with equal parts, and each one has a page at least, even beyond the bound. It is safe
// for concurrent use.
type Tables struct {
	bound int64 // bytes

	mu sync.Mutex // of what follows, and of what is held of the tables
	// held is what all pages take, bytes.
	held int64
	// open are the tables that have pages in memory.
	open map[*bat]struct{}
}

// NewTables returns a Tables with a bound in bytes.
func NewTables(bound int64) *Tables {
	return &Tables{bound: bound, open: make(map[*bat]struct{})}
}

// aloneBound is the bound, bytes, of a disk that is opened alone: a table of 2 TiB in
// blocks of 1 MiB.
const aloneBound = 16 * mib

// HeldBytes returns how many bytes the tables take.
func (t *Tables) HeldBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// keep holds page n of a table from now on, for which others go when there is no room.
func (t *Tables) keep(b *bat, n int64, p *page) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.released {
		return
	}
	for t.held+p.bytes() > t.bound {
		from := t.largest()
		if from == nil || from.held <= b.held+p.bytes() {
			from = b
		}
		if len(from.ring) == 0 {
			break // a page at least
		}
		t.held -= from.evict()
	}
	b.ring = append(b.ring, n)
	b.held += p.bytes()
	t.held += p.bytes()
	t.open[b] = struct{}{}
	b.pages[n].Store(p)
}

// largest returns the table that holds the most, of those that can spare a page; nil if
// there is none. t.mu is held.
func (t *Tables) largest() *bat {
	var most *bat
	for b := range t.open {
		if len(b.ring) > 1 && (most == nil || b.held > most.held) {
			most = b
		}
	}
	return most
}

// release gives back the memory of a table, of which nothing is held from now on. What is
// read of it afterwards is read from the file.
func (t *Tables) release(b *bat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range b.ring {
		b.pages[n].Store(nil)
	}
	t.held -= b.held
	b.ring, b.held, b.released = nil, 0, true
	delete(t.open, b)
}
