package extent

import (
	"fmt"

	"odx/backstore/invariant"
	"odx/backstore/refs"
)

// countPrefix is the first byte of the key of a page of reference counts.
const countPrefix = 'x'

// countKind: a new extent has a reference for each of its blocks, and one that
// is pinned can be without any.
var countKind = refs.Kind{Prefix: countPrefix, Least: -MaxUnit}

// Ref adds a reference for each slot that is not a hole. It does not look at the
// extents, whose pages would have to be read: one that a map or a pin keeps
// exists. Of slots from elsewhere the caller proves that with Resolve.
func (t *Table) Ref(slots []Slot) error {
	if invariant.Enabled {
		if err := t.Resolve(slots, make([]Location, len(slots))); err != nil {
			return fmt.Errorf("new reference: %w", err)
		}
	}
	return t.eachCounts(slots, func(c *refs.Page, slots []Slot) error {
		t.counts.Change(c)
		for _, s := range slots {
			if id := t.id(s); id != 0 {
				c.Add(uint64(id), 1)
			}
		}
		return nil
	})
}

// Unref takes a reference back for each slot that is not a hole, and frees
// extents that have none left.
func (t *Table) Unref(slots []Slot) error { return t.eachCounts(slots, t.unref) }

// unref is Unref for extents that have their counts on one page, which is locked.
func (t *Table) unref(c *refs.Page, slots []Slot) error {
	var p *page // of the last extent that had to be looked at, locked
	defer func() {
		if p != nil {
			p.Unlock()
		}
	}()
	changed := false
	for len(slots) > 0 {
		id, n := t.first(slots)
		slots = slots[n:]
		if id == 0 {
			continue
		}
		extra := c.Extra(uint64(id))
		take := int64(n)
		if extra < take {
			// It is left with fewer references than blocks, perhaps with none.
			var err error
			if p, err = t.pageOf(id, p); err != nil {
				return err
			}
			had := int64(p.entry(id).blocks) + extra
			if had < take {
				return fmt.Errorf("%w: %d references taken from extent %d, which has %d", ErrInconsistent, n, id, had)
			}
			if had == take && t.orphan(p, id) {
				take = extra // which leaves 0
			}
		}
		if take == 0 {
			continue // it was as new, and is gone
		}
		if !changed {
			t.counts.Change(c)
			changed = true
		}
		c.Add(uint64(id), -take)
	}
	return nil
}

// orphan frees an extent without references, unless it is pinned or may be
// referred to again by the rest of the journal, and reports whether it did. Its
// page and that of its count are locked.
func (t *Table) orphan(p *page, id ID) bool {
	if t.replaying {
		t.orphans = append(t.orphans, id)
		return false
	}
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	pinned := s.counts[id] > 0
	s.mu.Unlock()
	if pinned {
		return false
	}
	t.cache.Change(p)
	e := p.entry(id)
	t.usage.add(e.addr.Segment, -int64(e.blocks), 0)
	*e = entry{}
	return true
}

// freeUnused frees an extent if it has no references, as far as orphan does. The
// page of its count is locked.
func (t *Table) freeUnused(c *refs.Page, id ID) error {
	extra := c.Extra(uint64(id))
	if extra >= 0 {
		return nil // it has references, or has been freed
	}
	p, err := t.pageOf(id, nil)
	if err != nil {
		return err
	}
	defer p.Unlock()
	if int64(p.entry(id).blocks)+extra == 0 && t.orphan(p, id) {
		t.counts.Change(c)
		c.Add(uint64(id), -extra)
	}
	return nil
}

// References returns how many slots refer to an extent, and its length in blocks.
func (t *Table) References(id ID) (n uint64, blocks int, err error) {
	c, err := t.counts.Lock(uint64(id))
	if err != nil {
		return 0, 0, err
	}
	defer c.Unlock()
	p, err := t.pageOf(id, nil)
	if err != nil {
		return 0, 0, err
	}
	defer p.Unlock()
	return references(id, p, c)
}

// references returns what two pages say of an extent.
func references(id ID, p *page, c *refs.Page) (n uint64, blocks int, err error) {
	blocks = int(p.entry(id).blocks)
	if blocks == 0 {
		return 0, 0, fmt.Errorf("%w: extent %d does not exist", ErrInconsistent, id)
	}
	counted := int64(blocks) + c.Extra(uint64(id))
	if counted < 0 {
		return 0, 0, fmt.Errorf("%w: extent %d has a reference count of %d", ErrInconsistent, id, counted)
	}
	return uint64(counted), blocks, nil
}

// eachCounts calls fn with runs of slots whose extents have their counts on one
// page, holes among them, with that page locked.
func (t *Table) eachCounts(slots []Slot, fn func(c *refs.Page, slots []Slot) error) error {
	for i := 0; i < len(slots); {
		if slots[i] == 0 {
			i++
			continue
		}
		c, err := t.counts.Lock(uint64(t.id(slots[i])))
		if err != nil {
			return err
		}
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0 || c.Has(uint64(t.id(slots[i+n])))) {
			n++
		}
		err = fn(c, slots[i:i+n])
		c.Unlock()
		if err != nil {
			return err
		}
		i += n
	}
	return nil
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

// pageOf returns the page of an extent, locked. The caller holds another page, or
// the same one, or nil; another one is unlocked.
func (t *Table) pageOf(id ID, held *page) (*page, error) {
	number := uint64(id) / pageExtents
	if held != nil {
		if held.ID() == number {
			return held, nil
		}
		held.Unlock()
	}
	return t.cache.Lock(number)
}
