package extent

import "odx/backstore/invariant"

// Pin keeps the extent alive if it exists and has exactly that fingerprint and
// length, and reports whether it does.
func (t *Table) Pin(id ID, fp *Fingerprint, blocks int) (bool, error) {
	p, err := t.pageOf(id, nil)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	e := p.entry(id)
	if int(e.blocks) != blocks || e.fp != *fp {
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
	return t.freeUnused(c, id)
}

// Pinned returns the extents that are pinned. A checkpoint stores them with its
// cut: one that has no references then must be freed by the restart after it.
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

// BeginReplay defers frees until EndReplay. pinned are the extents that were
// pinned when the last checkpoint took its cut.
func (t *Table) BeginReplay(pinned []ID) {
	t.replaying = true
	t.orphans = pinned
}

// EndReplay frees what the replayed records left without references.
func (t *Table) EndReplay() error {
	t.replaying = false
	for _, id := range t.orphans {
		c, err := t.counts.Lock(uint64(id))
		if err != nil {
			return err
		}
		err = t.freeUnused(c, id)
		c.Unlock()
		if err != nil {
			return err
		}
	}
	t.orphans = nil
	return nil
}
