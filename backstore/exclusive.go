package backstore

import (
	"context"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// maxPartial bounds the extents that ExclusiveBytes remembers because it has not
// met all of their references yet.
const maxPartial = 1 << 20

// ExclusiveBytes returns, by name of the volume and of the file, the length of the extents
// that nothing but that object refers to: what deleting it gives back. Extents in segments
// of other stores are not among them, and those in segments that other stores hold are not:
// deleting the object gives back nothing here before they are brought home, or let go. It looks
// at a checkpoint that it makes, at every map and at the whole extent table, while
// operations continue. What was deleted just before can still share data. Where an
// object has more than a million extents that it refers to in several places, the
// result can be too small.
func (s *Store) ExclusiveBytes(ctx context.Context) (volumes, files map[string]int64, err error) {
	if err := s.life.usable(); err != nil {
		return nil, nil, err
	}
	volumes, files = make(map[string]int64), make(map[string]int64)
	err = s.viewCheckpoint(ctx, func(kv meta.Reader) error {
		shared, err := blockmap.SharedNodes(ctx, kv)
		if err != nil {
			return err
		}
		var objects []*Volume
		if err := s.scanTables(kv, func(v *Volume) { objects = append(objects, v) }, func(*snapshotState) {}); err != nil {
			return err
		}
		table := extent.NewStored(kv, s.parts.sb.Unit)
		shares, err := s.sharedSegments(kv)
		if err != nil {
			return err
		}
		for _, v := range objects {
			x := exclusive{table: table, shares: shares, partial: make(map[extent.ID]uint64)}
			err := blockmap.ExclusiveLeaves(ctx, kv, v.root, shared, func(slots []extent.Slot) error {
				return x.leaf(s.parts.extents, slots)
			})
			if err != nil {
				return fmt.Errorf("%v: %w", v, err)
			}
			if v.file {
				files[v.Name()] = x.blocks * BlockLength
			} else {
				volumes[v.Name()] = x.blocks * BlockLength
			}
		}
		return nil
	})
	return volumes, files, err
}

// sharedSegments returns the segments of a checkpoint that are not this store's alone: the
// aliases, and those that other stores hold.
func (s *Store) sharedSegments(kv meta.Reader) (map[segment.ID]bool, error) {
	shares := s.holds.among(make(map[segment.ID]bool))
	return shares, eachAlias(kv, func(id segment.ID, _ rows.Alias) { shares[id] = true })
}

// references returns how many slots refer to an extent, and its length in blocks, and the
// segment that it lies in.
type references interface {
	References(id extent.ID) (refs uint64, blocks int, err error)
	Segment(id extent.ID) (segment.ID, error)
}

// exclusive counts the extents whose references all come from one object.
type exclusive struct {
	table   references
	shares  map[segment.ID]bool  // segments whose extents do not count
	partial map[extent.ID]uint64 // references met, fewer than there are
	blocks  int64                // of the extents of which all were met, and that count
}

// leaf counts the references in a leaf that only the object has.
func (x *exclusive) leaf(t *extent.Table, slots []extent.Slot) error {
	for i := 0; i < len(slots); {
		if slots[i] == 0 {
			i++
			continue
		}
		id, _ := t.Split(slots[i])
		met := uint64(0)
		for ; i < len(slots) && slots[i] != 0; i++ {
			if next, _ := t.Split(slots[i]); next != id {
				break
			}
			met++
		}
		refs, blocks, err := x.table.References(id)
		if err != nil {
			return err
		}
		before, known := x.partial[id]
		switch met += before; {
		case met == refs:
			delete(x.partial, id)
			in, err := x.table.Segment(id)
			if err != nil {
				return err
			}
			if !x.shares[in] {
				x.blocks += int64(blocks)
			}
		case known || len(x.partial) < maxPartial:
			x.partial[id] = met
		}
	}
	return nil
}
