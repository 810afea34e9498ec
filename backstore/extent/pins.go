package extent

import (
	"slices"

	"odx/backstore/invariant"
	"odx/backstore/refs"
)

// Pin keeps the extent alive if it exists and has exactly that fingerprint and
// length, and reports whether it does.
func (t *Table) Pin(id ID, fp *Fingerprint, blocks int) (bool, error) {
	c, p, err := t.lock(id)
	if err != nil {
		return false, err
	}
	defer c.Unlock()
	defer p.Unlock()
	e := p.entry(id)
	if int(e.blocks) != blocks || e.fp != *fp || !t.alive(c, p, id) {
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
		invariant.Violated("extent %d is unpinned and was not pinned", id)
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
	died, err := t.endUnused(c, id)
	if err != nil || !died {
		return err
	}
	return t.buryWith(c, id)
}

// pinned reports whether an extent is pinned. The page of its count is locked.
func (t *Table) pinned(id ID) bool {
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[id] > 0
}

// Pinned returns the extents that are pinned. A checkpoint stores them with its
// cut: one that has no references then dies with the restart after it.
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

// BeginReplay defers deaths until EndReplay. pinned are the extents that were
// pinned when the last checkpoint took its cut.
func (t *Table) BeginReplay(pinned []ID) {
	t.replaying = true
	t.orphans = pinned
}

// EndReplay ends what the replayed records left without references.
func (t *Table) EndReplay() error {
	t.replaying = false
	slices.Sort(t.orphans)
	orphans := slices.Compact(t.orphans) // nothing dies twice
	t.orphans = nil
	err := t.eachOrphan(orphans, func(c *refs.Page, id ID) error {
		_, err := t.endUnused(c, id)
		return err
	})
	if err != nil {
		return err
	}
	// Only now, since whoever buries takes all that have no references for dead.
	return t.eachOrphan(orphans, t.buryWith)
}

// eachOrphan calls fn with each extent, and with the page of its count, locked.
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
