package extent

import (
	"errors"
	"fmt"

	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/refs"
)

// countPrefix is the first byte of the key of a page of reference counts.
const countPrefix = 'x'

// countKind: a new extent has a reference for each of its blocks, and one that
// is pinned can be without any.
var countKind = refs.Kind{Prefix: countPrefix, Least: -MaxUnit}

// Ref adds a reference for each slot that is not a hole; after an error it has added
// none. It does not look at the extents, whose pages would have to be read: one that a
// map or a pin keeps exists. Of slots from elsewhere the caller proves that with
// Resolve. Whatever keeps the extents does so until Ref returns.
func (t *Table) Ref(slots []Slot) error {
	if invariant.Enabled {
		if err := t.Resolve(slots, make([]Location, len(slots))); err != nil {
			return fmt.Errorf("new reference: %w", err)
		}
	}
	done, err := t.addEach(slots, 1)
	if err != nil {
		// Changed pages stay in memory, so that this finds them.
		_, undo := t.addEach(slots[:done], -1)
		return errors.Join(err, undo)
	}
	return nil
}

// addEach adds n to the count of the extent of each slot that is not a hole. It
// returns for how many slots it did.
func (t *Table) addEach(slots []Slot, n int64) (done int, err error) {
	return t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		t.counts.Change(c)
		return refs.AddEach(c, slots, t.shift, n), nil
	})
}

// TouchRef reads what Ref of slots needs: their counts alone.
func (t *Table) TouchRef(slots []Slot) error {
	if invariant.Enabled { // then Ref looks at the extents, too
		if err := t.Resolve(slots, make([]Location, len(slots))); err != nil {
			return err
		}
	}
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		return refs.Lead(c, slots, t.shift), nil
	})
	return err
}

// Touch reads what Ref and Unref of slots need, so that neither has to stop half
// done.
func (t *Table) Touch(slots []Slot) error {
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		l := losses{t: t, counts: c}
		defer l.leave()
		n, err := l.each(slots, l.visit)
		// Nobody has seen what it did to the counts.
		refs.AddEach(c, slots[:n], t.shift, 1)
		return n, err
	})
	return err
}

// TouchNew reads what Create of n extents from an ID on needs.
func (t *Table) TouchNew(first ID, n int) error {
	for i := 0; invariant.Enabled && i < n; i++ { // then Create looks at the counts, too
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

// SkipUnread makes sure that new extents come to pages that can be read: the last
// one that is stored may be damaged. It is called before there are any.
func (t *Table) SkipUnread() error {
	next := t.next.Load()
	_, err := t.cache.Get(next / pageExtents)
	if errors.Is(err, meta.ErrDamaged) {
		t.next.Store((next/pageExtents + 1) * pageExtents)
		return nil
	}
	return err
}

// Unref takes a reference back for each slot that is not a hole. Extents that have
// none left die.
func (t *Table) Unref(slots []Slot) error {
	_, err := t.eachCounts(slots, func(c *refs.Page, slots []Slot) (int, error) {
		t.counts.Change(c)
		l := losses{t: t, counts: c}
		defer l.leave()
		return l.each(slots, l.lose)
	})
	return err
}

// losses takes references from extents that have their counts on one page, which
// is locked.
type losses struct {
	t      *Table
	counts *refs.Page
	page   *page // of the last extent that had to be looked at, locked; or nil
	died   bool  // one of the page
}

// each takes a reference from the extent of each slot that is not a hole, up to the
// first whose count is on another page, and returns how many slots that are. Of
// extents that are left with fewer references than blocks, perhaps with none, it calls
// fn first, with how many references it is about to take from them.
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

// lose notes that n references are taken from an extent.
func (l *losses) lose(id ID, n int64) error {
	if err := l.visit(id, n); err != nil {
		return err
	}
	had := l.page.references(l.counts, id)
	if had < n {
		return fmt.Errorf("%w: %d references taken from extent %d, which has %d", ErrInconsistent, n, id, had)
	}
	if had == n {
		l.died = l.t.end(l.page, id) || l.died
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

// leave unlocks the page.
func (l *losses) leave() {
	if l.page == nil {
		return
	}
	if l.died {
		l.t.bury(l.counts, l.page)
	}
	l.page.Unlock()
	l.page, l.died = nil, false
}

// end notes that an extent has no references left, and reports whether it died of
// it: it may be pinned, or referred to again by the rest of the journal. Its page
// and that of its count are locked.
func (t *Table) end(p *page, id ID) bool {
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

// endUnused is end for an extent that may have no references. The page of its
// count is locked.
func (t *Table) endUnused(c *refs.Page, id ID) (died bool, err error) {
	if c.Extra(uint64(id)) >= 0 {
		return false, nil
	}
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	return p.entry(id).blocks != 0 && p.references(c, id) == 0 && t.end(p, id), nil
}

// buryWith is bury for the page of an extent. The page of its count is locked.
func (t *Table) buryWith(c *refs.Page, id ID) error {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return err
	}
	defer p.Unlock()
	t.bury(c, p)
	return nil
}

// bury takes the dead out of a page if they are a third of it, and their counts with
// them. Both pages are locked.
func (t *Table) bury(c *refs.Page, p *page) {
	first := ID(p.ID() * pageExtents)
	there, dead := 0, 0
	for i := range p.entries {
		if p.entries[i].blocks != 0 {
			there++
			if p.references(c, first+ID(i)) == 0 {
				dead++
			}
		}
	}
	if 3*dead < there {
		return
	}
	t.cache.Change(p)
	t.counts.Change(c)
	for i := range p.entries {
		e, id := &p.entries[i], first+ID(i)
		if e.blocks != 0 && !t.alive(c, p, id) {
			c.Add(uint64(id), int64(e.blocks))
			*e = entry{}
		}
	}
}

// alive reports whether there is an extent. Its page and that of its count are
// locked.
func (t *Table) alive(c *refs.Page, p *page, id ID) bool {
	return p.entry(id).blocks != 0 && (p.references(c, id) != 0 || t.pinned(id))
}

// references returns how many references an extent of the page has.
func (p *page) references(c *refs.Page, id ID) int64 {
	return int64(p.entry(id).blocks) + c.Extra(uint64(id))
}

// References returns how many slots refer to an extent, and its length in blocks.
func (t *Table) References(id ID) (n uint64, blocks int, err error) {
	c, p, err := t.lock(id)
	if err != nil {
		return 0, 0, err
	}
	defer c.Unlock()
	defer p.Unlock()
	return references(id, p, c)
}

// lock returns the pages of an extent's count and of the extent, locked.
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

// references returns what two pages say of an extent.
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

// eachCounts calls fn with slots the first of which is not a hole, and with the page
// that has its extent's count, locked. fn returns with how many of the slots it is
// done, all that have their counts there; then come the others. eachCounts returns
// with how many fn was done in all, holes among them.
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

// first returns the extent that the first slot names, 0 for a hole, and how many
// slots side by side name the same.
func (t *Table) first(slots []Slot) (id ID, n int) {
	id, n = t.id(slots[0]), 1
	for n < len(slots) && t.id(slots[n]) == id {
		n++
	}
	return id, n
}
