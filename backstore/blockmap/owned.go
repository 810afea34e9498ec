package blockmap

import (
	"context"

	"odx/backstore/extent"
)

// Owned is the part of a forest that only a group of trees reaches. A node belongs to
// the group if all its references come from roots of the group or from nodes that
// belong to it. Nodes below any other node are shared with trees outside the group and
// are not read, so the cost grows with what is exclusive, not with the size of the
// trees.
//
// The trees must neither change nor be dropped during the search. References that other
// trees add or drop concurrently may or may not be seen.
type Owned struct {
	f      *Forest
	leaves map[uint64]int64 // result of fn for each leaf of the group
	inner  map[uint64]bool  // nodes of the group above the leaves
}

// FindOwned calls fn with the slots of each leaf of the group, and sums the results of
// fn. It visits at most nodes nodes, and treats the others as shared with other trees.
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

// Of returns the sum of fn's results over the group's leaves below a root of the group.
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
