package extent

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"odx/backstore/meta"
	"odx/backstore/refs"
	"odx/backstore/segment"
)

const (
	// auditLoad is the number of table pages per Scan of an Audit: their keys differ in
	// the last byte only.
	auditLoad = 1 << 8
	// auditPages is the number of pages per group, in 75 MiB of memory.
	auditPages = 1 << 16
)

// AuditOptions configure an Audit.
type AuditOptions struct {
	KV     meta.Reader
	Unit   int  // blocks of a full extent
	Next   ID   // lowest ID never allocated
	Pinned []ID // extents that may have no references
	// EachLeaf calls fn with the slots of every leaf of the maps.
	EachLeaf func(fn func(slots []Slot)) error
	// Visit is called with each extent.
	Visit func(id ID, x *Extent)

	groupPages int // auditPages, except in tests
}

// Audit verifies the stored table against the maps: the count of each extent is the
// number of slots that name it, the block that a slot names exists, and the usage of
// each segment is the number of its live blocks. It scans the maps once for every 65536
// pages of the table.
func Audit(ctx context.Context, o AuditOptions, report func(finding string)) error {
	o.groupPages = cmp.Or(o.groupPages, auditPages)
	a := &audit{AuditOptions: o, report: report, pinned: make(map[ID]bool), live: make(map[segment.ID]int64)}
	for _, id := range o.Pinned {
		a.pinned[id] = true
	}
	pages := (uint64(o.Next) + pageExtents - 1) / pageExtents
	for first := uint64(0); first == 0 || first < pages; {
		g := &auditGroup{audit: a, first: first, index: make(map[uint64]int), unread: make(map[uint64]bool)}
		for first < pages && len(g.index) < o.groupPages {
			if err := g.load(ctx, first); err != nil {
				return err
			}
			first += auditLoad
		}
		if g.end = first; first >= pages {
			g.end = math.MaxUint64 // the last group includes IDs never allocated
			first = max(first, 1)
		}
		if err := g.counts(); err != nil {
			return err
		}
		if err := a.EachLeaf(g.count); err != nil {
			return err
		}
		if err := g.compare(); err != nil {
			return err
		}
	}
	return a.usage()
}

// audit is the state of one Audit.
type audit struct {
	AuditOptions
	report func(finding string)
	pinned map[ID]bool
	live   map[segment.ID]int64 // blocks
}

// auditGroup is the pages [first, end) of the table.
type auditGroup struct {
	*audit
	first, end uint64
	index      map[uint64]int // page → index of its first extent in unmatched and blocks
	unmatched  []int64        // references counted in the table minus references found
	blocks     []uint8        // or unreferenced
	lastCounts *numberedCounts
	unread     map[uint64]bool // pages of counts that cannot be read
	lastBad    ID              // last reported
}

// unreferenced replaces the length of an extent that is freed and not yet removed from
// its page.
const unreferenced = 0xff

// numberedCounts is a stored page of counts and its number.
type numberedCounts struct {
	number uint64
	*refs.Page
}

func pageKey(page uint64) []byte { return binary.BigEndian.AppendUint64([]byte{PagePrefix}, page) }

// load reads auditLoad pages, starting at page first.
func (g *auditGroup) load(ctx context.Context, first uint64) error {
	prefix := pageKey(first)
	return g.KV.Scan(prefix[:len(prefix)-1], func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		page := binary.BigEndian.Uint64(key[1:])
		p, err := decodePage(g.Unit, value)
		if err != nil {
			g.report(fmt.Sprintf("extents %d to %d cannot be read: %v", page*pageExtents, page*pageExtents+pageExtents-1, err))
			return nil
		}
		g.add(page, p)
		return nil
	})
}

// add adds the extents of a page.
func (g *auditGroup) add(page uint64, p *page) {
	first := ID(page * pageExtents)
	c := g.countsOf(first)
	at := len(g.blocks)
	g.index[page] = at
	g.blocks = append(g.blocks, make([]uint8, pageExtents)...)
	g.unmatched = append(g.unmatched, make([]int64, pageExtents)...)
	for i := range p.entries {
		e, id := &p.entries[i], first+ID(i)
		if e.blocks == 0 {
			continue
		}
		n := p.references(c, id)
		if n == 0 && !g.pinned[id] {
			g.blocks[at+i] = unreferenced
			continue
		}
		g.blocks[at+i], g.unmatched[at+i] = e.blocks, n
		g.live[e.addr.Segment] += int64(e.blocks)
		x := p.extent(i)
		g.Visit(id, &x)
	}
}

// countsOf returns the page with the count of an extent, or zeros if the page cannot be
// read.
func (g *auditGroup) countsOf(id ID) *refs.Page {
	number := uint64(id) / refs.PerPage
	if g.lastCounts == nil || g.lastCounts.number != number {
		c, err := refs.Read(g.KV, countKind, uint64(id))
		if err != nil {
			c = &refs.Page{} // counts reports the page
		}
		g.lastCounts = &numberedCounts{number, c}
	}
	return g.lastCounts.Page
}

// counts reports counts that cannot be read or belong to no extent. All counts of a
// page are of one group.
func (g *auditGroup) counts() error {
	return refs.Scan(g.KV, countKind, func(first uint64, extra []int64, err error) error {
		if page := first / pageExtents; page < g.first || page >= g.end {
			return nil
		}
		if err != nil {
			g.report(fmt.Sprintf("reference counts of extents %d to %d cannot be read: %v", first, first+refs.PerPage-1, err))
			g.unread[first/refs.PerPage] = true
			return nil
		}
		for i, n := range extra {
			if n != 0 {
				g.counted(ID(first + uint64(i)))
			}
		}
		return nil
	})
}

// counted reports a count if its extent does not exist.
func (g *auditGroup) counted(id ID) {
	at, ok := g.index[uint64(id)/pageExtents]
	if !ok || g.blocks[at+int(uint64(id)%pageExtents)] == 0 {
		g.report(fmt.Sprintf("extent %d has a reference count and does not exist", id))
	}
}

// count subtracts the slots of a leaf from the references.
func (g *auditGroup) count(slots []Slot) {
	last, at, ok := uint64(math.MaxUint64), 0, false
	for _, slot := range slots {
		id, block := ID(uint64(slot)/uint64(g.Unit)), int(uint64(slot)%uint64(g.Unit))
		page := uint64(id) / pageExtents
		if slot == 0 || page < g.first || page >= g.end {
			continue
		}
		if page != last {
			at, ok = g.index[page]
			last = page
		}
		i := at + int(uint64(id)%pageExtents)
		if !ok || g.blocks[i] == unreferenced || block >= int(g.blocks[i]) {
			g.bad(id, block)
			continue
		}
		g.unmatched[i]--
	}
}

// bad reports a slot whose block does not exist.
func (g *auditGroup) bad(id ID, block int) {
	if id == g.lastBad {
		return
	}
	g.lastBad = id
	g.report(fmt.Sprintf("a map names block %d of extent %d, which does not exist", block, id))
}

// compare reports the extents whose count differs from the references found.
func (g *auditGroup) compare() error {
	for _, page := range slices.Sorted(maps.Keys(g.index)) {
		at := g.index[page]
		for i, unmatched := range g.unmatched[at : at+pageExtents] {
			id := page*pageExtents + uint64(i)
			if unmatched == 0 || g.unread[id/refs.PerPage] {
				continue
			}
			c, err := refs.Read(g.KV, countKind, id)
			if err != nil {
				return err
			}
			counted := int64(g.blocks[at+i]) + c.Extra(id)
			g.report(fmt.Sprintf("extent %d has a reference count of %d and %d references", id, counted, counted-unmatched))
		}
	}
	return nil
}

// usage compares the stored usage of each segment with its live blocks.
func (a *audit) usage() error {
	counted := make(map[segment.ID]int64)
	err := a.KV.Scan([]byte{UsagePrefix}, func(key, value []byte) error {
		id := segment.ID(binary.BigEndian.Uint32(key[1:]))
		su, err := decodeUsage(value)
		if err != nil {
			a.report(fmt.Sprintf("usage of segment %08x cannot be read: %v", uint32(id), err))
			return nil
		}
		counted[id] = su.live
		a.live[id] += 0 // include segments without extents
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(a.live)) {
		if counted[id] != a.live[id] {
			a.report(fmt.Sprintf("segment %08x has a usage of %d live blocks and %d live blocks", uint32(id), counted[id], a.live[id]))
		}
	}
	return nil
}
