package extent

import "fmt"

// Pages returns how many pages hold every extent that exists now; Visit takes
// their numbers, from 0.
func (t *Table) Pages() uint64 {
	return (uint64(t.Next()) + pageExtents - 1) / pageExtents
}

// Visit calls fn with each extent of a page.
func (t *Table) Visit(page uint64, fn func(id ID, x *Extent)) error {
	first := ID(page * pageExtents)
	c, p, err := t.lock(first)
	if err != nil {
		return err
	}
	defer c.Unlock()
	defer p.Unlock()
	for i := range p.entries {
		if id := first + ID(i); t.alive(c, p, id) {
			x := p.extent(i)
			fn(id, &x)
		}
	}
	return nil
}

// Get returns an extent; ok is false when there is none of that number, or none
// any more.
func (t *Table) Get(id ID) (x Extent, ok bool, err error) {
	c, p, err := t.lock(id)
	if err != nil {
		return Extent{}, false, err
	}
	defer c.Unlock()
	defer p.Unlock()
	if !t.alive(c, p, id) {
		return Extent{}, false, nil
	}
	return p.extent(int(uint64(id) % pageExtents)), true, nil
}

// Entry returns an extent as its page has it, whether or not anything refers to it;
// ok is false when there is none of that number. Its count is not looked at.
func (t *Table) Entry(id ID) (x Extent, ok bool, err error) {
	p, err := t.pageOf(id, nil)
	if err != nil {
		return Extent{}, false, err
	}
	defer p.Unlock()
	i := int(uint64(id) % pageExtents)
	if p.entries[i].blocks == 0 {
		return Extent{}, false, nil
	}
	return p.extent(i), true, nil
}

// extent returns the extent of entry i.
func (p *page) extent(i int) Extent {
	e := &p.entries[i]
	x := Extent{Addr: e.addr, Blocks: e.blocks, Fingerprint: e.fp}
	copy(x.CRC[:], p.crc(i)[:e.blocks])
	return x
}

// Fingerprints fills out[i] with the fingerprint of the block that slots[i]
// names: zeros for a hole, and where none is known of just that block.
func (t *Table) Fingerprints(slots []Slot, out []Fingerprint) error {
	var p *page
	defer func() {
		if p != nil {
			p.Unlock()
		}
	}()
	for i, s := range slots {
		out[i] = Fingerprint{}
		if s == 0 {
			continue
		}
		id, block := t.Split(s)
		var err error
		if p, err = t.pageOf(id, p); err != nil {
			return err
		}
		e := p.entry(id)
		if block >= int(e.blocks) {
			return fmt.Errorf("%w: slot names block %d of extent %d, which has %d", ErrInconsistent, block, id, e.blocks)
		}
		if e.blocks == 1 {
			out[i] = e.fp
		}
	}
	return nil
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
