package blockmap

import "odx/backstore/extent"

// Diff calls fn with the runs of blocks [first, first+count) that tree a maps to another
// slot than tree b does, in order, until nodes nodes are read. Mapped says whether a maps
// the run. It returns the block to continue from: first+count at the end. Adjacent runs
// can be of one kind. Both trees must be held, each by a snapshot or a reference of the
// caller's, and unchanged.
//
// Subtrees with the same top node are equal and are not read, so the cost grows with what
// differs. The argument: a node changes in place only where it has one reference, whose
// owner is the tree that is changed (see node). A node that a held tree reaches has, on
// the path from that tree, a node with a second reference if any other tree reaches it
// too; a change of the other tree copies that node first, and with it gives all nodes
// below a second reference. So no node that a held tree reaches changes, and a number
// that both trees have is one node. Numbers are not used again.
//
// A root spans its blocks from 0 on; beyond that the tree is a hole. So a tree of a lower
// level is the first child of each level above it.
func (f *Forest) Diff(a, b Root, first, count uint64, nodes int, fn func(Run)) (next uint64, err error) {
	top := max(a.Level, b.Level)
	w := diffWalk{f: f, next: first, end: first + count, nodes: nodes, fn: fn}
	if err := w.walk(a, b, top, 0); err != nil {
		return w.next, err
	}
	if w.next >= span(top) {
		w.next = w.end // holes in both
	}
	return w.next, nil
}

// diffWalk compares two trees in order; blocks before next are done.
type diffWalk struct {
	f         *Forest
	next, end uint64
	nodes     int
	fn        func(Run)
}

// walk compares the parts of two trees that begin at block base and span a node of the
// level; the parts can be of lower levels. It leaves next before the end of that span if
// the limit of nodes is reached.
func (w *diffWalk) walk(a, b Root, level uint8, base uint64) error {
	end := base + span(level)
	if end <= w.next || base >= w.end {
		return nil
	}
	if a.Node == b.Node {
		w.next = min(end, w.end)
		return nil
	}
	if w.nodes <= 0 {
		return nil
	}
	an, err := w.read(a, level)
	if err != nil {
		return err
	}
	bn, err := w.read(b, level)
	if err != nil {
		return err
	}
	if level == 0 {
		w.slots(an, bn, base)
		return nil
	}
	sub := span(level - 1)
	for i := range Fanout {
		at := base + uint64(i)*sub
		if at+sub <= w.next {
			continue
		}
		if err := w.walk(child(an, a, i, level), child(bn, b, i, level), level-1, at); err != nil {
			return err
		}
		if w.next < at+sub { // the limit, or the end of what is compared
			return nil
		}
	}
	return nil
}

// read returns the node at the top of a part, nil for a hole and for a part that is of a
// lower level.
func (w *diffWalk) read(r Root, level uint8) (*node, error) {
	if r.Node == 0 || r.Level < level {
		return nil, nil
	}
	w.nodes--
	return w.f.node(r.Node, level)
}

// child returns the part of r, whose top node is n, below slot i of a node of the level.
func child(n *node, r Root, i int, level uint8) Root {
	switch {
	case n != nil:
		return Root{Node: uint64(n.slots[i]), Level: level - 1}
	case i == 0:
		return r
	}
	return Root{}
}

// slots compares two leaves, of which one can be a hole.
func (w *diffWalk) slots(a, b *node, base uint64) {
	as, bs := &holes, &holes
	if a != nil {
		as = &a.slots
	}
	if b != nil {
		bs = &b.slots
	}
	lo, hi := int(max(w.next, base)-base), int(min(w.end, base+Fanout)-base)
	DiffSlots(as[lo:hi], bs[lo:hi], base+uint64(lo), w.fn)
	w.next = base + uint64(hi)
}

// DiffSlots calls fn with the runs of blocks, from block first on, at which the slots a
// differ from the slots b. Both have the same length.
func DiffSlots(a, b []extent.Slot, first uint64, fn func(Run)) {
	for i := 0; i < len(a); {
		if a[i] == b[i] {
			i++
			continue
		}
		k := i + 1
		for k < len(a) && a[k] != b[k] && (a[k] == 0) == (a[i] == 0) {
			k++
		}
		fn(Run{First: first + uint64(i), Count: uint64(k - i), Mapped: a[i] != 0})
		i = k
	}
}
