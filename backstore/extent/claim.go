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
	return t.eachLive(slots, crc, func(c *refs.Page, id ID) {
		t.counts.Change(c)
		c.Add(uint64(id), 1)
	})
}

// Live makes 0 the slots that do not name a block of a live extent.
func (t *Table) Live(slots []Slot) error {
	return t.eachLive(slots, nil, func(*refs.Page, ID) {})
}

// eachLive calls fn, with the page of its count locked, with the extent of each slot that
// names a block of a live extent, which has the checksum in crc unless that is nil. It
// makes the other slots 0, all that are left if it returns an error.
func (t *Table) eachLive(slots []Slot, crc []uint32, fn func(c *refs.Page, id ID)) error {
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
		n, err := t.liveOn(c, slots, done, crc, fn)
		c.Unlock()
		if err != nil {
			clear(slots[n:])
			return err
		}
		done = n
	}
	return nil
}

// liveOn is eachLive from slot done on, up to the first one whose count is not on page c.
// It returns the index of that slot.
func (t *Table) liveOn(c *refs.Page, slots []Slot, done int, crc []uint32, fn func(c *refs.Page, id ID)) (int, error) {
	var p *page
	defer func() {
		if p != nil {
			p.Unlock()
		}
	}()
	for ; done < len(slots); done++ {
		if slots[done] == 0 {
			continue
		}
		id, block := t.Split(slots[done])
		if !c.Has(uint64(id)) {
			break
		}
		if number := uint64(id) / pageExtents; p == nil || p.ID() != number {
			if p != nil {
				p.Unlock()
			}
			var err error
			if p, err = t.cache.Lock(number); err != nil {
				p = nil
				if !errors.Is(err, meta.ErrDamaged) {
					return done, err
				}
				slots[done] = 0
				continue
			}
		}
		if !t.live(c, p, id) || block >= int(p.entry(id).blocks) || crc != nil && p.crc(int(uint64(id) % pageExtents))[block] != crc[done] {
			slots[done] = 0
			continue
		}
		fn(c, id)
	}
	return done, nil
}
