package backstore

import (
	"context"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
)

const (
	// maxUses bounds the uses of one damaged extent that are listed.
	maxUses = 1000
	// usesStep is how many map nodes are read under a volume's lock at once.
	usesStep = 64
)

// findUses walks the maps of all volumes and snapshots for the damaged blocks
// and adds where they are used.
func (s *Store) findUses(ctx context.Context, damages []Damage) error {
	f := &useFinder{store: s, damages: make(map[extent.ID]*Damage, len(damages))}
	for i := range damages {
		f.damages[extent.ID(damages[i].Extent)] = &damages[i]
	}
	for _, v := range s.catalog.all() {
		if err := f.volume(ctx, v); err != nil {
			return err
		}
	}
	for _, id := range s.catalog.snapshotIDs() {
		n, err := s.Snapshot(id)
		if err != nil {
			continue // deleted concurrently
		}
		err = f.snapshot(ctx, n)
		n.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// useFinder looks for damaged blocks in trees.
type useFinder struct {
	store   *Store
	damages map[extent.ID]*Damage
}

func useOf(v *Volume) Use {
	if v.file {
		return Use{File: v.Name()}
	}
	return Use{Volume: v.Name()}
}

func (f *useFinder) volume(ctx context.Context, v *Volume) error {
	for next := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.mu.RLock()
		root, size := v.root, v.size
		var err error
		next, err = f.store.parts.forest.Leaves(root, next, usesStep, func(base uint64, slots []extent.Slot) {
			f.leaf(useOf(v), base, slots, 0, size)
		})
		v.mu.RUnlock()
		if err != nil || next >= root.Blocks() {
			return err
		}
	}
}

// snapshot looks at the snapshot's ranges: the leaves at their ends hold more.
func (f *useFinder) snapshot(ctx context.Context, n *Snapshot) error {
	st := n.state
	for _, r := range st.ranges {
		end := blockmap.Root{Level: st.root.Level}.Blocks()
		end = min(end, uint64((r.Offset+r.Length+BlockLength-1)/BlockLength))
		for next := uint64(r.Offset) / BlockLength / blockmap.Fanout * blockmap.Fanout; next < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			next, err = f.store.parts.forest.Leaves(st.root, next, usesStep, func(base uint64, slots []extent.Slot) {
				f.leaf(Use{Snapshot: st.id}, base, slots, r.Offset, r.Offset+r.Length)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// leaf adds the uses in a leaf whose first block is base, as far as they lie in
// bytes [lo, hi).
func (f *useFinder) leaf(who Use, base uint64, slots []extent.Slot, lo, hi int64) {
	for i, slot := range slots {
		if slot == 0 {
			continue
		}
		id, block := f.store.parts.extents.Split(slot)
		d := f.damages[id]
		if d == nil || d.bad&(1<<block) == 0 {
			continue
		}
		who.Offset = max(int64(base+uint64(i))*BlockLength, lo)
		who.Length = min(int64(base+uint64(i)+1)*BlockLength, hi) - who.Offset
		if who.Length > 0 {
			d.use(who)
		}
	}
}

// use adds a use, to the last one if they adjoin.
func (d *Damage) use(u Use) {
	if n := len(d.Uses); n > 0 && d.MoreUses == 0 {
		last := &d.Uses[n-1]
		if last.Volume == u.Volume && last.Snapshot == u.Snapshot && last.Offset+last.Length == u.Offset {
			last.Length += u.Length
			return
		}
	}
	if len(d.Uses) == maxUses {
		d.MoreUses++
		return
	}
	d.Uses = append(d.Uses, u)
}
