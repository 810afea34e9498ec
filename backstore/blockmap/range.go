package blockmap

import "odx/backstore/extent"

// Range is a range of blocks of a tree.
type Range struct {
	First, Count uint64
}

// Clear unmaps the range.
func (f *Forest) Clear(r *Root, first, count uint64) error {
	if first >= r.Blocks() || count == 0 {
		return nil
	}
	id, err := f.clear(r.Node, r.Level, first, min(first+count, r.Blocks()))
	r.Node = id
	return err
}

// holes is the slots of an unmapped leaf. It is read-only.
var holes [Fanout]extent.Slot

// clear unmaps blocks [lo, hi), relative to the node's first, and returns the
// replacement of the node: a node that the caller owns, or 0.
func (f *Forest) clear(id uint64, level uint8, lo, hi uint64) (uint64, error) {
	if id == 0 || lo >= hi {
		return id, nil
	}
	if lo == 0 && hi == span(level) {
		return 0, f.release(id)
	}
	n, err := f.ownNode(id, level)
	if err != nil {
		return id, err
	}
	if level == 0 {
		if err := f.replace(n, int(lo), holes[:hi-lo]); err != nil {
			return n.ID(), err
		}
	} else if err := f.clearChildren(n, lo, hi); err != nil {
		return n.ID(), err
	}
	if n.empty() {
		// The node has no children left, so it is deleted without Reap.
		return 0, f.delete(n)
	}
	return n.ID(), nil
}

func (f *Forest) clearChildren(n *node, lo, hi uint64) error {
	sub := span(n.level - 1)
	for at := lo / sub; at*sub < hi; at++ {
		base := at * sub
		child := uint64(n.slots[at])
		left, err := f.clear(child, n.level-1, max(lo, base)-base, min(hi, base+sub)-base)
		if err != nil {
			return err
		}
		if err := f.setChild(n, int(at), left); err != nil {
			return err
		}
	}
	return nil
}

// Share returns a new tree of the same geometry that maps the ranges of r. It shares
// leaves and wholly covered nodes, and creates the nodes above them with only the
// covered slots: one path for each end of a range. Ranges are sorted and do not
// overlap.
func (f *Forest) Share(r Root, ranges []Range) (Root, error) {
	id, err := f.share(r.Node, r.Level, 0, ranges)
	return Root{Node: id, Level: r.Level}, err
}

func (f *Forest) share(id uint64, level uint8, base uint64, ranges []Range) (uint64, error) {
	end := base + span(level)
	for len(ranges) > 0 && ranges[0].First+ranges[0].Count <= base {
		ranges = ranges[1:]
	}
	if id == 0 || len(ranges) == 0 || ranges[0].First >= end {
		return 0, nil
	}
	if level == 0 || ranges[0].First <= base && ranges[0].First+ranges[0].Count >= end {
		return id, f.addRef(id)
	}
	n, err := f.node(id, level)
	if err != nil {
		return 0, err
	}
	c := &node{level: level}
	for _, rg := range ranges {
		if rg.First >= end {
			break
		}
		if err := f.shareChildren(c, n, base, rg, ranges); err != nil {
			return 0, err
		}
	}
	if c.empty() {
		return 0, nil
	}
	return f.insert(c).ID(), nil
}

// shareChildren adds to c, the partial copy of n with first block base, the children of
// n that rg overlaps. ranges are all ranges of the share.
func (f *Forest) shareChildren(c, n *node, base uint64, rg Range, ranges []Range) error {
	sub := span(n.level - 1)
	first := index(max(rg.First, base), n.level)
	last := index(min(rg.First+rg.Count, base+span(n.level))-1, n.level)
	whole := first // children [whole, at) are shared, their references not yet added
	for at := first; at <= last; at++ {
		begin := base + uint64(at)*sub
		fresh := c.slots[at] == 0 && n.slots[at] != 0 // else a hole, or shared by the preceding range
		if fresh && (n.level == 1 || rg.First <= begin && rg.First+rg.Count >= begin+sub) {
			c.slots[at] = n.slots[at]
			continue
		}
		if err := f.addRefs(c.slots[whole:at]); err != nil {
			return err
		}
		whole = at + 1
		if !fresh {
			continue
		}
		child, err := f.share(uint64(n.slots[at]), n.level-1, begin, ranges)
		if err != nil {
			return err
		}
		c.slots[at] = extent.Slot(child)
	}
	return f.addRefs(c.slots[min(whole, last+1) : last+1])
}
