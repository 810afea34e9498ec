package extent

import (
	"errors"

	"odx/backstore/meta"
	"odx/backstore/refs"
)

// Claim adds a reference for each slot that names a block of a live extent with the
// checksum in crc, and makes the others 0. It is Ref for slots that neither a map nor a pin
// keeps: what says that they name certain data may be wrong or old. The caller has begun an
// operation, so that no checkpoint cut lies between the references and the map's slots.
//
// An extent whose rows are damaged is not live. After another error the claimed slots are
// those that are not 0.
func (t *Table) Claim(slots []Slot, crc []uint32) error {
	return t.eachLive(slots, crc, func(c *refs.Page, live []Slot) {
		t.counts.Change(c)
		refs.AddEach(c, live, t.shift, 1)
	})
}

// Live makes 0 the slots that do not name a block of a live extent.
func (t *Table) Live(slots []Slot) error {
	return t.eachLive(slots, nil, func(*refs.Page, []Slot) {})
}

// eachLive makes 0 the slots that do not name a block of a live extent which has the
// checksum in crc, if that is not nil. It calls fn with the locked page of counts of the
// others, for those on each page. After an error the slots that fn did not get are 0.
func (t *Table) eachLive(slots []Slot, crc []uint32, fn func(c *refs.Page, live []Slot)) error {
	for done := 0; done < len(slots); {
		if slots[done] == 0 {
			done++
			continue
		}
		c, err := t.counts.Lock(uint64(t.id(slots[done])))
		if err != nil {
			if !errors.Is(err, meta.ErrDamaged) {
				clear(slots[done:])
				return err
			}
			slots[done] = 0
			continue
		}
		n := refs.Lead(c, slots[done:], t.shift)
		var sums []uint32
		if crc != nil {
			sums = crc[done : done+n]
		}
		if err = t.liveOn(c, slots[done:done+n], sums); err == nil {
			fn(c, slots[done:done+n])
		}
		c.Unlock()
		if err != nil {
			clear(slots[done:])
			return err
		}
		done += n
	}
	return nil
}

// liveOn is eachLive for slots whose counts are on page c.
func (t *Table) liveOn(c *refs.Page, slots []Slot, crc []uint32) error {
	var p *page
	defer func() {
		if p != nil {
			p.Unlock()
		}
	}()
	for i, slot := range slots {
		if slot == 0 {
			continue
		}
		id, block := t.Split(slot)
		if number := uint64(id) / pageExtents; p == nil || p.ID() != number {
			if p != nil {
				p.Unlock()
			}
			var err error
			if p, err = t.cache.Lock(number); err != nil {
				p = nil
				if !errors.Is(err, meta.ErrDamaged) {
					return err
				}
				slots[i] = 0
				continue
			}
		}
		// In this order: without an entry there are no checksums.
		if block >= int(p.entry(id).blocks) || !t.live(c, p, id) || crc != nil && p.crc(int(uint64(id) % pageExtents))[block] != crc[i] {
			slots[i] = 0
		}
	}
	return nil
}
