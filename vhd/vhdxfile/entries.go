package vhdxfile

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// pageEntries is the number of entries in a page of 64 KiB, the granularity of the
// cached BAT.
const pageEntries = 8 * kib

// bat has the entries of a BAT and reads its pages on demand. get may be called
// concurrently; set and open require exclusive access.
type bat struct {
	view   *view
	at     region
	count  int64
	tables *Tables

	// fetching is held while a page is read.
	fetching sync.Mutex
	// pages has the cached pages by number. It changes under tables.mu.
	pages []atomic.Pointer[page]
	// ring has the numbers of the cached pages in order of arrival, hand the position
	// of the clock in it; guarded by tables.mu.
	ring []int64
	hand int
	// held is the memory of the cached pages in bytes; guarded by tables.mu.
	held int64
	// released: no page is cached any more; guarded by tables.mu.
	released bool
}

// page is a page of the BAT.
type page struct {
	entries []uint64
	used    atomic.Bool // since the clock hand last passed
}

// bytes returns the memory of a page.
func (p *page) bytes() int64 { return 8 * int64(len(p.entries)) }

// open initializes the BAT of a file, whose pages tables caches.
func (b *bat) open(v *view, at region, t table, tables *Tables) error {
	if t.length() > at.length {
		return bad("block allocation table of %d bytes; the disk needs %d", at.length, t.length())
	}
	b.view, b.at, b.count, b.tables = v, at, t.count, tables
	b.pages = make([]atomic.Pointer[page], (t.count+pageEntries-1)/pageEntries)
	return nil
}

// each calls fn with all entries in order.
func (b *bat) each(ctx context.Context, fn func(index int64, e uint64) error) error {
	buf := make([]byte, min(mib, b.count*8))
	for index := int64(0); index < b.count; {
		p := buf[:min(int64(len(buf)), (b.count-index)*8)]
		if err := b.view.readAt(ctx, p, b.at.offset+index*8); err != nil {
			return err
		}
		for ; len(p) > 0; index, p = index+1, p[8:] {
			if err := fn(index, le.Uint64(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns an entry.
func (b *bat) get(ctx context.Context, index int64) (uint64, error) {
	p := b.pages[index/pageEntries].Load()
	if p == nil {
		var err error
		if p, err = b.fetch(ctx, index/pageEntries); err != nil {
			return 0, err
		}
	} else if !p.used.Load() { // avoid writes to a hot page
		p.used.Store(true)
	}
	return p.entries[index%pageEntries], nil
}

// fetch reads a page that is not cached.
func (b *bat) fetch(ctx context.Context, n int64) (*page, error) {
	b.fetching.Lock()
	defer b.fetching.Unlock()
	if p := b.pages[n].Load(); p != nil {
		return p, nil // another caller has read it
	}
	buf := make([]byte, 8*min(pageEntries, b.count-n*pageEntries))
	if err := b.view.readAt(ctx, buf, b.at.offset+n*pageEntries*8); err != nil {
		return nil, fmt.Errorf("block allocation table: %w", err)
	}
	p := &page{entries: make([]uint64, len(buf)/8)}
	p.used.Store(true)
	for i := range p.entries {
		p.entries[i] = le.Uint64(buf[8*i:])
	}
	b.tables.keep(b, n, p)
	return p, nil
}

// evict drops a page that was not used recently and returns its length in bytes. There
// must be a page. The caller holds tables.mu.
func (b *bat) evict() int64 {
	b.hand %= len(b.ring)
	for b.pages[b.ring[b.hand]].Load().used.Swap(false) {
		b.hand = (b.hand + 1) % len(b.ring)
	}
	n := b.pages[b.ring[b.hand]].Swap(nil).bytes()
	b.ring = slices.Delete(b.ring, b.hand, b.hand+1)
	b.held -= n
	return n
}

// set changes an entry that the file or its log already has.
func (b *bat) set(index int64, e uint64) {
	if p := b.pages[index/pageEntries].Load(); p != nil {
		p.entries[index%pageEntries] = e
	}
}

// sector returns a sector of the BAT as in the file or its log.
func (b *bat) sector(ctx context.Context, n int64) ([]byte, error) {
	p := make([]byte, sectorLength)
	first := n * entriesPerSector
	held := b.pages[first/pageEntries].Load()
	if held == nil {
		return p, b.view.readAt(ctx, p, b.at.offset+n*sectorLength)
	}
	first %= pageEntries
	for i, e := range held.entries[first:min(first+entriesPerSector, int64(len(held.entries)))] {
		le.PutUint64(p[i*8:], e)
	}
	return p, nil
}
