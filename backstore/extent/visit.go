package extent

import "fmt"

// Pages returns the number of pages that hold all extents that exist now. Visit takes
// page numbers from 0.
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
		if id := first + ID(i); t.live(c, p, id) {
			x := p.extent(i)
			fn(id, &x)
		}
	}
	return nil
}

// Get returns an extent. ok is false if it does not exist or is freed.
func (t *Table) Get(id ID) (x Extent, ok bool, err error) {
	c, p, err := t.lock(id)
	if err != nil {
		return Extent{}, false, err
	}
	defer c.Unlock()
	defer p.Unlock()
	if !t.live(c, p, id) {
		return Extent{}, false, nil
	}
	return p.extent(int(uint64(id) % pageExtents)), true, nil
}

// Entry returns the entry of an extent, even if the extent is freed. It does not read
// the count. ok is false if there is no entry.
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

// Fingerprints fills out[i] with the fingerprint of the block that slots[i] names:
// zeros for a hole, and for a block of a longer extent, whose fingerprint covers all
// its blocks.
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
			return fmt.Errorf("%w: slot names block %d of extent %d of %d blocks", ErrInconsistent, block, id, e.blocks)
		}
		if e.blocks == 1 {
			out[i] = e.fp
		}
	}
	return nil
}

// pageOf returns the locked page of an extent. held is a page that the caller has
// locked, or nil; pageOf unlocks it if it is another one.
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
