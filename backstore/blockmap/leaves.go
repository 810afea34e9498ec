package blockmap

import "odx/backstore/extent"

// Leaves calls fn with the leaves of a tree in order, starting at block first: the
// leaf's first block and its slots, which fn must neither retain nor modify. It stops
// after reading nodes nodes, which must exceed the tree's levels by one, and returns
// the block to continue from: the end of the tree when no leaf is left.
func (f *Forest) Leaves(r Root, first uint64, nodes int, fn func(base uint64, slots []extent.Slot)) (next uint64, err error) {
	w := leafWalk{f: f, next: first, nodes: nodes, fn: fn}
	err = w.walk(r.Node, r.Level, 0)
	return w.next, err
}

// leafWalk walks a tree in order; next is the first block that it did not reach.
type leafWalk struct {
	f     *Forest
	next  uint64
	nodes int
	fn    func(base uint64, slots []extent.Slot)
}

// walk visits a subtree. It leaves next before the subtree's end if the limit of nodes
// is reached.
func (w *leafWalk) walk(id uint64, level uint8, base uint64) error {
	end := base + span(level)
	if end <= w.next {
		return nil
	}
	if id == 0 {
		w.next = end
		return nil
	}
	if w.nodes == 0 {
		return nil
	}
	w.nodes--
	n, err := w.f.node(id, level)
	if err != nil {
		return err
	}
	if level == 0 {
		w.fn(base, n.slots[:])
		w.next = end
		return nil
	}
	sub := span(level - 1)
	for i, child := range n.slots {
		at := base + uint64(i)*sub
		if err := w.walk(uint64(child), level-1, at); err != nil {
			return err
		}
		if w.next < at+sub {
			return nil
		}
	}
	return nil
}
