package vhdxfile

import (
	"sync"
)

// Tables opens virtual disks whose block allocation tables share a memory bound. It
// caches the most recently used pages of each table. If there is no room for another
// page, it evicts one of the disk that holds most, so disks in use converge to equal
// shares. Each has at least one page, even beyond the bound. It is safe for concurrent
// use.
type Tables struct {
	bound int64 // in bytes

	mu sync.Mutex // guards the fields below, and the cached pages of the tables
	// held is the memory of all pages in bytes.
	held int64
	// open has the tables with cached pages.
	open map[*bat]struct{}
}

// NewTables returns a Tables with a bound in bytes.
func NewTables(bound int64) *Tables {
	return &Tables{bound: bound, open: make(map[*bat]struct{})}
}

// defaultBound is the bound in bytes of a disk that is opened without Tables: the table
// of 2 TiB in blocks of 1 MiB.
const defaultBound = 16 * mib

// HeldBytes returns the memory of the tables in bytes.
func (t *Tables) HeldBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// keep caches page n of a table, and evicts others if there is no room.
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
			break // at least one page each
		}
		t.held -= from.evict()
	}
	b.ring = append(b.ring, n)
	b.held += p.bytes()
	t.held += p.bytes()
	t.open[b] = struct{}{}
	b.pages[n].Store(p)
}

// largest returns the table that holds most, among those with more than one page, or
// nil. The caller holds t.mu.
func (t *Tables) largest() *bat {
	var most *bat
	for b := range t.open {
		if len(b.ring) > 1 && (most == nil || b.held > most.held) {
			most = b
		}
	}
	return most
}

// release frees the cached pages of a table and stops caching. Later reads are from the
// file.
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
