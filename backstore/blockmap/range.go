package blockmap

import (
	"odx/backstore/extent"
	"odx/backstore/invariant"
)

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

// slotCost is what copying the slots of one leaf costs in comparison with
// sharing one node.
const slotCost = 8

// Copy makes blocks [to, to+count) of dst equal blocks [from, from+count) of
// src. Where both lie alike to a node's span the node is shared, elsewhere
// slots are copied. It stops when it has spent budget steps and returns how
// many blocks it did, at least a leaf's part. After a StepError it is whole as far
// as it came.
func (f *Forest) Copy(dst *Root, to uint64, src Root, from, count uint64, budget int) (uint64, error) {
	done := uint64(0)
	for done < count && budget > 0 {
		if err := f.touchStep(dst, to+done, src, from+done, count-done, budget); err != nil {
			return done, err
		}
		n, cost, err := f.copyStep(dst, to+done, src, from+done, count-done, budget)
		if err != nil {
			return done, err
		}
		done += n
		budget -= cost
	}
	return done, nil
}

func (f *Forest) copyStep(dst *Root, to uint64, src Root, from, count uint64, budget int) (n uint64, cost int, err error) {
	if level, ok := commonLevel(to, from, count, min(dst.Level, src.Level)); ok {
		nodes, err := f.shareRun(dst, to, src, from, level, int(min(uint64(budget), count/span(level))))
		return uint64(nodes) * span(level), nodes, err
	}
	slots := f.scratch.Get().(*[Fanout]extent.Slot)
	defer f.putScratch(slots)
	n = min(count, Fanout-to%Fanout)
	if err := f.Lookup(src, from, slots[:n]); err != nil {
		return 0, 0, err
	}
	if err := f.extents.Ref(slots[:n]); err != nil {
		return 0, 0, err
	}
	return n, slotCost, f.Set(dst, to, slots[:n])
}

func (f *Forest) putScratch(slots *[Fanout]extent.Slot) {
	if invariant.Enabled {
		for i := range slots {
			slots[i] = ^extent.Slot(0)
		}
	}
	f.scratch.Put(slots)
}

// commonLevel returns the highest level at which a whole node can be shared.
func commonLevel(to, from, count uint64, top uint8) (level uint8, ok bool) {
	for l := int(top); l >= 0; l-- {
		s := span(uint8(l))
		if count >= s && to%s == 0 && from%s == 0 {
			return uint8(l), true
		}
	}
	return 0, false
}

// shareInto puts the source's node of a level into the destination's place.
func (f *Forest) shareInto(dst *Root, to uint64, src Root, from uint64, level uint8) error {
	n, err := f.nodeAt(src, from, level)
	if err != nil {
		return err
	}
	if n == nil {
		return f.Clear(dst, to, span(level))
	}
	if err := f.addRef(n.ID()); err != nil {
		return err
	}
	if level == dst.Level {
		old := dst.Node
		dst.Node = n.ID()
		return f.release(old)
	}
	parent, err := f.own(dst, to, level+1)
	if err != nil {
		return err
	}
	at := index(to, level+1)
	old := uint64(parent.slots[at])
	if err := f.setChild(parent, at, n.ID()); err != nil {
		return err
	}
	return f.release(old)
}
