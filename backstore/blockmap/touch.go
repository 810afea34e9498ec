package blockmap

import (
	"errors"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/refs"
)

// A change that cannot read its inputs must fail before it changes anything. So the
// caller first calls the Touch method of the change, which reads the same rows; they
// stay in the cache until the change.

// TouchSet reads the rows that Set and Clear of a range of a leaf need.
func (f *Forest) TouchSet(r Root, first, count uint64) error {
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(r.Node, r.Level, first, min(first+count, r.Blocks()), -1)
}

// TouchClear reads the rows that Clear of a range needs.
func (f *Forest) TouchClear(r Root, first, count uint64) error {
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(r.Node, r.Level, first, min(first+count, r.Blocks()), MaxLevel)
}

// touchNew reads the counts of the nodes that are allocated next. One change allocates
// fewer nodes than a page of counts has, so two pages suffice.
func (f *Forest) touchNew() error {
	next := f.next.Load()
	if _, err := f.counts.Extra(next); err != nil {
		return err
	}
	_, err := f.counts.Extra(next + refs.PerPage)
	return err
}

// SkipUnread advances the next node number past a damaged page of counts, so that the
// counts of new nodes can be read. It is called before nodes are allocated.
func (f *Forest) SkipUnread() error {
	next := f.next.Load()
	_, err := f.counts.Extra(next)
	if errors.Is(err, meta.ErrDamaged) {
		f.next.Store((next/refs.PerPage + 1) * refs.PerPage)
		return nil
	}
	return err
}

// touch reads the rows that a change of blocks [lo, hi), relative to the node's first,
// needs: the nodes on the path, their counts, and the counts of children and extents
// that lose a reference or, below a shared node, gain one. Nodes wholly in the range,
// up to level whole, are released without reading their children.
func (f *Forest) touch(id uint64, level uint8, lo, hi uint64, whole int) error {
	if id == 0 || lo >= hi {
		return nil
	}
	shared, err := f.counts.Extra(id)
	if err != nil || int(level) <= whole && lo == 0 && hi == span(level) {
		return err
	}
	n, err := f.node(id, level)
	if err != nil {
		return err
	}
	if shared > 0 {
		if err := f.touchChildren(n, f.extents.TouchRef); err != nil {
			return err
		}
	}
	if level == 0 {
		return f.extents.Touch(n.slots[lo:hi])
	}
	return f.touchBelow(n, lo, hi, whole, func(child, lo, hi uint64) error {
		return f.touch(child, level-1, lo, hi, whole)
	})
}

// touchBelow reads the counts of the children wholly in blocks [lo, hi), relative to
// the node's first, if they are of level whole or below. It calls fn with each other
// child that overlaps the range, and with the range relative to the child's first
// block.
func (f *Forest) touchBelow(n *node, lo, hi uint64, whole int, fn func(child, lo, hi uint64) error) error {
	sub := span(n.level - 1)
	for at := lo / sub; at*sub < hi; {
		base := at * sub
		if end := hi / sub; lo <= base && at < end && int(n.level) <= whole+1 {
			if err := f.touchCounts(n.slots[at:end]); err != nil {
				return err
			}
			at = end
			continue
		}
		if err := fn(uint64(n.slots[at]), max(lo, base)-base, min(hi, base+sub)-base); err != nil {
			return err
		}
		at++
	}
	return nil
}

// touchChildren reads the counts of a node's children. For a leaf it calls touch with
// the slots.
func (f *Forest) touchChildren(n *node, touch func([]extent.Slot) error) error {
	if n.level == 0 {
		return touch(n.slots[:])
	}
	return f.touchCounts(n.slots[:])
}

// TouchShare reads the rows that Share of the ranges needs.
func (f *Forest) TouchShare(r Root, ranges []Range) error {
	for _, rg := range ranges {
		if err := f.touchShare(r.Node, r.Level, rg.First, min(rg.First+rg.Count, r.Blocks()), MaxLevel); err != nil {
			return err
		}
	}
	return nil
}

// touchShare reads the rows that sharing blocks [lo, hi) needs. Nodes wholly in the
// range, up to level whole, are shared without reading their children.
func (f *Forest) touchShare(id uint64, level uint8, lo, hi uint64, whole int) error {
	if id == 0 || lo >= hi {
		return nil
	}
	if level == 0 || int(level) <= whole && lo == 0 && hi == span(level) {
		_, err := f.counts.Extra(id)
		return err
	}
	n, err := f.node(id, level)
	if err != nil {
		return err
	}
	return f.touchBelow(n, lo, hi, whole, func(child, lo, hi uint64) error {
		return f.touchShare(child, level-1, lo, hi, whole)
	})
}

// TouchDrop reads the count that Drop and Hold of a tree need.
func (f *Forest) TouchDrop(r Root) error {
	if r.Node == 0 {
		return nil
	}
	_, err := f.counts.Extra(r.Node)
	return err
}

// touchNode reads the rows that reaping a node needs.
func (f *Forest) touchNode(id uint64) error {
	n, err := f.nodes.Get(id)
	if err != nil {
		return err
	}
	return f.touchChildren(n, f.extents.Touch)
}

// touchRun reads the counts of up to most nodes of src that shareRun can share in one
// step, and the rows that the change of dst needs.
func (f *Forest) touchRun(dst *Root, to uint64, src Root, from uint64, level uint8, most int) error {
	nodes := uint64(1)
	if level < dst.Level && level < src.Level {
		nodes = uint64(max(1, min(most, Fanout-index(to, level+1), Fanout-index(from, level+1))))
	}
	end := min(from+nodes*span(level), src.Blocks())
	if err := f.touchShare(src.Node, src.Level, from, end, int(level)); err != nil {
		return err
	}
	if _, err := f.nodeAt(src, from, level); err != nil { // verifies the node's level
		return err
	}
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(dst.Node, dst.Level, to, min(to+nodes*span(level), dst.Blocks()), int(level))
}
