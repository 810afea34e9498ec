package blockmap

import "odx/backstore/extent"

// Range is a range of blocks of a tree.
type Range struct {
	First, Count uint64
}

// Clear makes the range a hole.
func (f *Forest) Clear(r *Root, first, count uint64) error {
	if first >= r.Blocks() || count == 0 {
		return nil
	}
	id, err := f.clear(r.Node, r.Level, first, min(first+count, r.Blocks()))
	r.Node = id
	return err
}

// holes is read only: the slots of a leaf of holes.
var holes [Fanout]extent.Slot

// clear makes blocks [lo, hi), relative to the node's first, a hole and returns
// what stands in the node's place: a node of the caller's own, or 0.
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
		// It has nothing to pass on, so it needs no reaping.
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

// Share returns a new tree of the same geometry with the nodes of r that hold
// the ranges, shared: leaves and wholly covered nodes as they are, above them
// new nodes with only the covered slots. It costs a path for each range end.
// Ranges are sorted and do not overlap.
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

// shareChildren gives c, which stands for what n does from block base on, those of
// n's children that rg touches; ranges are all that the tree shares.
func (f *Forest) shareChildren(c, n *node, base uint64, rg Range, ranges []Range) error {
	sub := span(n.level - 1)
	first := index(max(rg.First, base), n.level)
	last := index(min(rg.First+rg.Count, base+span(n.level))-1, n.level)
	whole := first // children from here to at are shared as they are, and not counted yet
	for at := first; at <= last; at++ {
		begin := base + uint64(at)*sub
		fresh := c.slots[at] == 0 && n.slots[at] != 0 // else a hole, or a neighbouring range shared it already
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
