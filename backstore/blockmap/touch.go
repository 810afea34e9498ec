package blockmap

import (
	"errors"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/refs"
)

// A change that cannot read what it needs must fail before it has changed
// anything. So a caller that changes a tree first calls the method here that reads the
// same: what it has read stays in the cache for the time being.

// TouchSet reads what Set and Clear of a range of a leaf need.
func (f *Forest) TouchSet(r Root, first, count uint64) error {
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(r.Node, r.Level, first, min(first+count, r.Blocks()), -1)
}

// TouchClear reads what Clear of a range needs.
func (f *Forest) TouchClear(r Root, first, count uint64) error {
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(r.Node, r.Level, first, min(first+count, r.Blocks()), MaxLevel)
}

// touchNew reads the counts of the nodes that are made next: one change makes
// fewer than have their counts on a page.
func (f *Forest) touchNew() error {
	next := f.next.Load()
	if _, err := f.counts.Extra(next); err != nil {
		return err
	}
	_, err := f.counts.Extra(next + refs.PerPage)
	return err
}

// SkipUnread makes sure that new nodes have counts that can be read: the last ones
// that are stored may be damaged. It is called before there are any.
func (f *Forest) SkipUnread() error {
	next := f.next.Load()
	_, err := f.counts.Extra(next)
	if errors.Is(err, meta.ErrDamaged) {
		f.next.Store((next/refs.PerPage + 1) * refs.PerPage)
		return nil
	}
	return err
}

// touch reads what a change of blocks [lo, hi), relative to the node's first,
// needs: the way down, the counts of its nodes, and those of what loses a
// reference or, where a node is shared, gains one. Nodes wholly in the range, up
// to level whole, are given up as they are.
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

// touchBelow reads the counts of children of a node that hold nothing but some of
// blocks [lo, hi), relative to the node's first, if they are of level whole or below,
// and calls fn with the other children that hold some, and with which of their own.
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

// touchChildren reads the counts of what a node points to; of extents with touch.
func (f *Forest) touchChildren(n *node, touch func([]extent.Slot) error) error {
	if n.level == 0 {
		return touch(n.slots[:])
	}
	return f.touchCounts(n.slots[:])
}

// TouchShare reads what Share of these ranges needs.
func (f *Forest) TouchShare(r Root, ranges []Range) error {
	for _, rg := range ranges {
		if err := f.touchShare(r.Node, r.Level, rg.First, min(rg.First+rg.Count, r.Blocks()), MaxLevel); err != nil {
			return err
		}
	}
	return nil
}

// touchShare reads what it takes to share blocks [lo, hi), where nodes wholly in
// the range, up to level whole, are shared as they are.
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

// TouchDrop reads what Drop and Hold of a tree need.
func (f *Forest) TouchDrop(r Root) error {
	if r.Node == 0 {
		return nil
	}
	_, err := f.counts.Extra(r.Node)
	return err
}

// touchNode reads what reaping a node needs.
func (f *Forest) touchNode(id uint64) error {
	n, err := f.nodes.Get(id)
	if err != nil {
		return err
	}
	return f.touchChildren(n, f.extents.Touch)
}

// touchRun reads the counts of nodes of a level of the source that can be shared in
// one step, at most so many, and what their places in the destination need.
func (f *Forest) touchRun(dst *Root, to uint64, src Root, from uint64, level uint8, most int) error {
	nodes := uint64(1)
	if level < dst.Level && level < src.Level {
		nodes = uint64(max(1, min(most, Fanout-index(to, level+1), Fanout-index(from, level+1))))
	}
	end := min(from+nodes*span(level), src.Blocks())
	if err := f.touchShare(src.Node, src.Level, from, end, int(level)); err != nil {
		return err
	}
	if _, err := f.nodeAt(src, from, level); err != nil { // whose level is proved
		return err
	}
	if err := f.touchNew(); err != nil {
		return err
	}
	return f.touch(dst.Node, dst.Level, to, min(to+nodes*span(level), dst.Blocks()), int(level))
}
