package extent

import (
	"slices"

	"odx/backstore/invariant"
	"odx/backstore/refs"
)

// Pin keeps the extent from being freed until Unpin, if it exists and has the
// fingerprint and length in blocks. It reports whether it does.
func (t *Table) Pin(id ID, fp *Fingerprint, blocks int) (bool, error) {
	c, p, err := t.lock(id)
	if err != nil {
		return false, err
	}
	defer c.Unlock()
	defer p.Unlock()
	e := p.entry(id)
	if int(e.blocks) != blocks || e.fp != *fp || !t.live(c, p, id) {
		return false, nil
	}
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	s.counts[id]++
	s.mu.Unlock()
	return true, nil
}

// Unpin ends a Pin.
func (t *Table) Unpin(id ID) error {
	c, err := t.counts.Lock(uint64(id))
	if err != nil {
		return err
	}
	defer c.Unlock()
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	if invariant.Enabled && s.counts[id] == 0 {
		invariant.Violated("extent %d: Unpin without Pin", id)
	}
	s.counts[id]--
	last := s.counts[id] == 0
	if last {
		delete(s.counts, id)
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	freed, err := t.freeUnreferenced(c, id)
	if err != nil || !freed {
		return err
	}
	return t.compactPageOf(c, id)
}

// pinned reports whether an extent is pinned. The page of its count is locked.
func (t *Table) pinned(id ID) bool {
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[id] > 0
}

// Pinned returns the pinned extents. A checkpoint stores them with its cut, so that the
// next open frees those without references.
func (t *Table) Pinned() []ID {
	var ids []ID
	for i := range t.pins {
		s := &t.pins[i]
		s.mu.Lock()
		for id := range s.counts {
			ids = append(ids, id)
		}
		s.mu.Unlock()
	}
	return ids
}

// BeginReplay defers frees until EndReplay. pinned are the extents that were pinned at
// the cut of the last checkpoint.
func (t *Table) BeginReplay(pinned []ID) {
	t.replaying = true
	t.orphans = pinned
}

// EndReplay frees the extents that have no references after the replay.
func (t *Table) EndReplay() error {
	t.replaying = false
	slices.Sort(t.orphans)
	orphans := slices.Compact(t.orphans) // each extent is freed once
	t.orphans = nil
	err := t.eachOrphan(orphans, func(c *refs.Page, id ID) error {
		_, err := t.freeUnreferenced(c, id)
		return err
	})
	if err != nil {
		return err
	}
	// compact treats every extent without references as freed, so all frees precede it.
	return t.eachOrphan(orphans, t.compactPageOf)
}

// eachOrphan calls fn with each extent and the locked page of its count.
func (t *Table) eachOrphan(orphans []ID, fn func(c *refs.Page, id ID) error) error {
	for _, id := range orphans {
		c, err := t.counts.Lock(uint64(id))
		if err != nil {
			return err
		}
		err = fn(c, id)
		c.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
