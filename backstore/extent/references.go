package extent

import (
	"errors"
	"fmt"

	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/refs"
	"odx/backstore/segment"
)

// CountPrefix is the first byte of the key of a page of reference counts.
const CountPrefix = 'x'

// countKind: a new extent has one reference per block; a pinned extent may have none.
var countKind = refs.Kind{Prefix: CountPrefix, Least: -MaxUnit}

// Ref adds a reference for each slot that is not a hole, or none if it returns an
// error. It does not read the pages of the extents: a map or a pin must keep each
// extent until Ref returns. The caller verifies slots from other sources with Resolve.
func (t *Table) Ref(slots []Slot) error {
	if invariant.Enabled {
		if err := t.Resolve(slots, make([]Location, len(slots))); err != nil {
			return fmt.Errorf("new reference: %w", err)
		}
	}
	done, err := t.addEach(slots, 1)
	if err != nil {
		// Changed pages stay in memory, so the undo reads nothing.
		_, undo := t.addEach(slots[:done], -1)
		return errors.Join(err, undo)
	}
	return nil
}

// addEach adds n to the count of the extent of each slot that is not a hole. It returns
// the number of slots processed.
func (t *Table) addEach(slots []Slot, n int64) (done int, err error) {
	return t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		t.counts.Change(c)
		return refs.AddEach(c, slots, t.shift, n), nil
	})
}

// TouchRef reads the rows that Ref of slots needs: only counts.
func (t *Table) TouchRef(slots []Slot) error {
	if invariant.Enabled { // then Ref resolves the slots
		if err := t.Resolve(slots, make([]Location, len(slots))); err != nil {
			return err
		}
	}
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		return refs.Lead(c, slots, t.shift), nil
	})
	return err
}

// Touch reads the rows that Ref and Unref of slots need, so that a failed read does not
// interrupt either.
func (t *Table) Touch(slots []Slot) error {
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		l := losses{t: t, counts: c}
		defer l.leave()
		n, err := l.each(slots, l.visit)
		// The page is locked, so no caller saw the changed counts.
		refs.AddEach(c, slots[:n], t.shift, 1)
		return n, err
	})
	return err
}

// TouchNew reads the rows that Create of n extents, starting at first, needs.
func (t *Table) TouchNew(first ID, n int) error {
	for i := 0; invariant.Enabled && i < n; i++ { // then Create reads the counts
		if _, err := t.counts.Extra(uint64(first) + uint64(i)); err != nil {
			return err
		}
	}
	for page := uint64(first) / pageExtents; n > 0 && page <= (uint64(first)+uint64(n)-1)/pageExtents; page++ {
		if _, err := t.cache.Get(page); err != nil {
			return err
		}
	}
	return nil
}

// SkipUnread advances the next ID past a damaged page, so that the pages of new extents
// can be read. It is called before extents are allocated.
func (t *Table) SkipUnread() error {
	next := t.next.Load()
	_, err := t.cache.Get(next / pageExtents)
	if errors.Is(err, meta.ErrDamaged) {
		t.next.Store((next/pageExtents + 1) * pageExtents)
		return nil
	}
	return err
}

// Unref removes a reference for each slot that is not a hole, and frees extents without
// references and pins.
func (t *Table) Unref(slots []Slot) error {
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		t.counts.Change(c)
		l := losses{t: t, counts: c}
		defer l.leave()
		return l.each(slots, l.lose)
	})
	return err
}

// losses removes references from extents whose counts are on one page, which is locked.
type losses struct {
	t      *Table
	counts *refs.Page
	page   *page // page of the last visited extent, locked; or nil
	freed  bool  // an extent of page was freed
}

// each removes a reference from the extent of each slot that is not a hole, up to the
// first whose count is on another page, and returns the number of slots processed. For
// an extent left with fewer references than blocks, it first calls fn with the number
// of references to remove.
func (l *losses) each(slots []Slot, fn func(id ID, n int64) error) (done int, err error) {
	for {
		done += refs.TakeEach(l.counts, slots[done:], l.t.shift)
		if done == len(slots) || !l.counts.Has(uint64(l.t.id(slots[done]))) {
			return done, nil
		}
		id, n := l.t.first(slots[done:])
		if err := fn(id, int64(n)); err != nil {
			return done, err
		}
		l.counts.Add(uint64(id), -int64(n))
		done += n
	}
}

// lose frees an extent that is about to lose its last n references.
func (l *losses) lose(id ID, n int64) error {
	if err := l.visit(id, n); err != nil {
		return err
	}
	had := l.page.references(l.counts, id)
	if had < n {
		return fmt.Errorf("%w: remove %d references from extent %d: it has %d", ErrInconsistent, n, id, had)
	}
	if had == n {
		l.freed = l.t.free(l.page, id) || l.freed
	}
	return nil
}

// visit locks the page of an extent.
func (l *losses) visit(id ID, _ int64) (err error) {
	if number := uint64(id) / pageExtents; l.page == nil || l.page.ID() != number {
		l.leave()
		l.page, err = l.t.cache.Lock(number)
	}
	return err
}

// leave compacts the page if an extent of it was freed, and unlocks it.
func (l *losses) leave() {
	if l.page == nil {
		return
	}
	if l.freed {
		l.t.compact(l.counts, l.page)
	}
	l.page.Unlock()
	l.page, l.freed = nil, false
}

// free frees an extent without references and reports whether it did: the extent may be
// pinned, or a later record of the journal may refer to it. Its page and the page of
// its count are locked.
func (t *Table) free(p *page, id ID) bool {
	if t.replaying {
		t.orphans = append(t.orphans, id)
		return false
	}
	if t.pinned(id) {
		return false
	}
	e := p.entry(id)
	t.usage.add(e.addr.Segment, -int64(e.blocks), 0)
	return true
}

// freeUnreferenced is free for an extent that may have references. The page of its
// count is locked.
func (t *Table) freeUnreferenced(c *refs.Page, id ID) (freed bool, err error) {
	if c.Extra(uint64(id)) >= 0 {
		return false, nil
	}
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	return p.entry(id).blocks != 0 && p.references(c, id) == 0 && t.free(p, id), nil
}

// compactPageOf is compact for the page of an extent. The page of its count is locked.
func (t *Table) compactPageOf(c *refs.Page, id ID) error {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return err
	}
	defer p.Unlock()
	t.compact(c, p)
	return nil
}

// compact removes the unreferenced extents from a page, and their counts, if they are
// at least a third of its extents. Both pages are locked.
func (t *Table) compact(c *refs.Page, p *page) {
	first := ID(p.ID() * pageExtents)
	existing, unreferenced := 0, 0
	for i := range p.entries {
		if p.entries[i].blocks != 0 {
			existing++
			if p.references(c, first+ID(i)) == 0 {
				unreferenced++
			}
		}
	}
	if 3*unreferenced < existing {
		return
	}
	t.cache.Change(p)
	t.counts.Change(c)
	for i := range p.entries {
		e, id := &p.entries[i], first+ID(i)
		if e.blocks != 0 && !t.live(c, p, id) {
			c.Add(uint64(id), int64(e.blocks))
			*e = entry{}
		}
	}
}

// live reports whether an extent exists and is not freed. Its page and the page of its
// count are locked.
func (t *Table) live(c *refs.Page, p *page, id ID) bool {
	return p.entry(id).blocks != 0 && (p.references(c, id) != 0 || t.pinned(id))
}

// references returns the reference count of an extent of the page.
func (p *page) references(c *refs.Page, id ID) int64 {
	return int64(p.entry(id).blocks) + c.Extra(uint64(id))
}

// References returns the number of slots that refer to an extent, and its length in
// blocks.
func (t *Table) References(id ID) (n uint64, blocks int, err error) {
	c, p, err := t.lock(id)
	if err != nil {
		return 0, 0, err
	}
	defer c.Unlock()
	defer p.Unlock()
	return references(id, p, c)
}

// Segment returns the segment that an extent lies in, 0 if there is no such extent.
func (t *Table) Segment(id ID) (segment.ID, error) {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return 0, err
	}
	defer p.Unlock()
	return p.entry(id).addr.Segment, nil
}

// lock returns the page of an extent's count and the page of the extent, both locked.
func (t *Table) lock(id ID) (c *refs.Page, p *page, err error) {
	if c, err = t.counts.Lock(uint64(id)); err != nil {
		return nil, nil, err
	}
	if p, err = t.cache.Lock(uint64(id) / pageExtents); err != nil {
		c.Unlock()
		return nil, nil, err
	}
	return c, p, nil
}

// references returns the reference count and length of an extent from its two pages.
func references(id ID, p *page, c *refs.Page) (n uint64, blocks int, err error) {
	blocks = int(p.entry(id).blocks)
	if blocks == 0 {
		return 0, 0, fmt.Errorf("%w: extent %d does not exist", ErrInconsistent, id)
	}
	counted := p.references(c, id)
	if counted < 0 {
		return 0, 0, fmt.Errorf("%w: extent %d has a reference count of %d", ErrInconsistent, id, counted)
	}
	return uint64(counted), blocks, nil
}

// eachCounts calls fn with the rest of slots, starting at a slot that is not a hole,
// and with the locked page of its extent's count. fn returns the number of leading
// slots it has processed: those with counts on the page. eachCounts returns the total
// number of slots processed, including holes.
func (t *Table) eachCounts(slots []Slot, fn func(c *refs.Page, slots []Slot) (int, error)) (done int, err error) {
	for done < len(slots) {
		if slots[done] == 0 {
			done++
			continue
		}
		c, err := t.counts.Lock(uint64(t.id(slots[done])))
		if err != nil {
			return done, err
		}
		n, err := fn(c, slots[done:])
		c.Unlock()
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// first returns the extent that the first slot names, 0 for a hole, and the number of
// leading slots that name it.
func (t *Table) first(slots []Slot) (id ID, n int) {
	id, n = t.id(slots[0]), 1
	for n < len(slots) && t.id(slots[n]) == id {
		n++
	}
	return id, n
}
