package blockmap

import (
	"context"

	"odx/backstore/extent"
)

// Owned finds what nothing but a group of trees reaches. A node belongs to the
// group when all of its references come from roots of the group or from nodes
// that belong to it; what is below any other node is somebody else's too, and is
// not looked at. So trees that share all but a little with others cost little.
//
// The trees must neither change nor be dropped meanwhile. References that others
// add or drop at the same time may count or not.
type Owned struct {
	f      *Forest
	leaves map[uint64]int64 // what fn said of each leaf of the group
	inner  map[uint64]bool  // nodes of the group above the leaves
}

// FindOwned calls fn with the slots of each leaf of the group, up to a number of
// nodes; the rest is taken for somebody else's. fn returns what the leaf counts.
func (f *Forest) FindOwned(ctx context.Context, roots []Root, nodes int, fn func(slots []extent.Slot) (int64, error)) (*Owned, error) {
	o := &Owned{f: f, leaves: make(map[uint64]int64), inner: make(map[uint64]bool)}
	var met [MaxLevel + 1]map[uint64]int64 // by level: references from the group
	for level := range met {
		met[level] = make(map[uint64]int64)
	}
	for _, r := range roots {
		if r.Node != 0 {
			met[r.Level][r.Node]++
		}
	}
	for level := MaxLevel; level >= 0; level-- {
		for id, found := range met[level] {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			all, err := f.references(id)
			if err != nil {
				return nil, err
			}
			if found < all || nodes == 0 {
				continue
			}
			nodes--
			n, err := f.node(id, uint8(level))
			if err != nil {
				return nil, err
			}
			if level == 0 {
				if o.leaves[id], err = fn(n.slots[:]); err != nil {
					return nil, err
				}
				continue
			}
			o.inner[id] = true
			for _, child := range n.slots {
				if child != 0 {
					met[level-1][uint64(child)]++
				}
			}
		}
		met[level] = nil
	}
	return o, nil
}

// Of returns the sum of what the group's leaves below a root of the group count.
func (o *Owned) Of(r Root) (int64, error) {
	if r.Level == 0 || r.Node == 0 {
		return o.leaves[r.Node], nil
	}
	if !o.inner[r.Node] {
		return 0, nil
	}
	n, err := o.f.node(r.Node, r.Level)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, child := range n.slots {
		if child == 0 {
			continue
		}
		part, err := o.Of(Root{Node: uint64(child), Level: r.Level - 1})
		if err != nil {
			return 0, err
		}
		sum += part
	}
	return sum, nil
}
