package vhdxfile

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// maxWhole is the longest BAT, bytes, that is held in memory. Of a longer one, that of a
// disk of more than 2 TiB in blocks of 1 MiB, the pages that were used last are. So a disk
// takes no more than that, and a chain of them no more than that for each.
const maxWhole = 16 * mib

// A page of a BAT that is not held in memory, and how many are: 16 MiB of them.
const (
	pageEntries = 8 * kib
	maxPages    = 256
)

// bat is the entries of a BAT. get may be called concurrently; set and open exclude all.
type bat struct {
	view  *view
	at    region
	count int64
	whole []uint64 // nil: it is too long

	// pages are those that are in memory, by number; they come and go under mu.
	pages []atomic.Pointer[page]
	mu    sync.Mutex
	// ring are the numbers of the pages, in the order in which they came; hand is where
	// the next one to go is looked for. Guarded by mu.
	ring []int64
	hand int
}

// page is a part of the BAT.
type page struct {
	entries []uint64
	used    atomic.Bool // since it was looked at whether it can go
}

// open reads a BAT, or as much of it as is held in memory.
func (b *bat) open(ctx context.Context, v *view, at region, t table) error {
	if t.length() > at.length {
		return bad("the block allocation table has %d bytes; the disk needs %d", at.length, t.length())
	}
	b.view, b.at, b.count = v, at, t.count
	if t.length() > maxWhole {
		b.pages = make([]atomic.Pointer[page], (t.count+pageEntries-1)/pageEntries)
		return nil
	}
	whole := make([]uint64, t.count)
	err := b.each(ctx, func(index int64, e uint64) error {
		whole[index] = e
		return nil
	})
	b.whole = whole
	return err
}

// each calls fn with all entries in order.
func (b *bat) each(ctx context.Context, fn func(index int64, e uint64) error) error {
	for index, e := range b.whole {
		if err := fn(int64(index), e); err != nil {
			return err
		}
	}
	if b.whole != nil {
		return nil
	}
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
	if b.whole != nil {
		return b.whole[index], nil
	}
	p := b.pages[index/pageEntries].Load()
	if p == nil {
		var err error
		if p, err = b.fetch(ctx, index/pageEntries); err != nil {
			return 0, err
		}
	} else if !p.used.Load() { // no write where it is used all the time
		p.used.Store(true)
	}
	return p.entries[index%pageEntries], nil
}

// fetch reads a page that is not in memory, in place of one that was not used for long.
func (b *bat) fetch(ctx context.Context, n int64) (*page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pages[n].Load(); p != nil {
		return p, nil // another caller was faster
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
	if len(b.ring) < maxPages {
		b.ring = append(b.ring, n)
	} else {
		for b.pages[b.ring[b.hand]].Load().used.Swap(false) {
			b.hand = (b.hand + 1) % maxPages
		}
		b.pages[b.ring[b.hand]].Store(nil)
		b.ring[b.hand] = n
	}
	b.pages[n].Store(p)
	return p, nil
}

// set changes an entry that the file, or its log, has already.
func (b *bat) set(index int64, e uint64) {
	if b.whole != nil {
		b.whole[index] = e
		return
	}
	if p := b.pages[index/pageEntries].Load(); p != nil {
		p.entries[index%pageEntries] = e
	}
}

// sector returns a sector of the BAT as it is in the file.
func (b *bat) sector(ctx context.Context, n int64) ([]byte, error) {
	p := make([]byte, sectorLength)
	if b.whole == nil {
		return p, b.view.readAt(ctx, p, b.at.offset+n*sectorLength)
	}
	for i, e := range b.whole[n*entriesPerSector : min((n+1)*entriesPerSector, int64(len(b.whole)))] {
		le.PutUint64(p[i*8:], e)
	}
	return p, nil
}
