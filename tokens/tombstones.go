package tokens

// tombstones remembers what became of the tokens that died last.
type tombstones struct {
	max   int
	byID  map[ID]tombstone
	order []ID // oldest first
}

// surplus returns the tombstones to forget so that one more fits.
func (t *tombstones) surplus() []ID {
	n := max(len(t.order)+1-t.max, 0)
	return append([]ID(nil), t.order[:min(n, len(t.order))]...)
}

// add sets up a tombstone and forgets others. Two callers may have been given
// the same surplus; the next one makes up for it.
func (t *tombstones) add(id ID, grave tombstone, forget []ID) {
	for _, old := range forget {
		delete(t.byID, old)
	}
	for len(t.order) > 0 {
		if _, kept := t.byID[t.order[0]]; kept {
			break
		}
		t.order = t.order[1:]
	}
	t.byID[id] = grave
	t.order = append(t.order, id)
}
