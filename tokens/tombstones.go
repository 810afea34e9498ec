package tokens

// tombstones holds the tombstones of the tokens that ended last.
type tombstones struct {
	max   int
	byID  map[ID]tombstone
	order []ID // oldest first
}

// surplus returns the tombstones to delete so that one more fits.
func (t *tombstones) surplus() []ID {
	n := max(len(t.order)+1-t.max, 0)
	return append([]ID(nil), t.order[:min(n, len(t.order))]...)
}

// add adds a tombstone and deletes others. If two callers got the same surplus, the
// next one deletes more.
func (t *tombstones) add(id ID, ts tombstone, forget []ID) {
	for _, old := range forget {
		delete(t.byID, old)
	}
	for len(t.order) > 0 {
		if _, kept := t.byID[t.order[0]]; kept {
			break
		}
		t.order = t.order[1:]
	}
	t.byID[id] = ts
	t.order = append(t.order, id)
}
