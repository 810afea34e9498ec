package backstore

import (
	"context"
	"errors"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/segment"
)

// maxHeldNodes bounds the map nodes that HeldBytes looks at: leaves of 256 GiB
// that was overwritten since the snapshots.
const maxHeldNodes = 1 << 17

// Held says what a group of snapshots keeps alive.
type Held struct {
	// Total is the length of the extents that nothing but the group refers to:
	// what deleting all of its snapshots gives back. Unless a capacity of the store is what
	// limits new data, it has none in segments of other stores, nor in segments that those
	// hold: it would give no space back here.
	Total int64
	// Each is by snapshot the part of Total in the map nodes that it has alone
	// or together with others of the group. Deleting one gives back that much
	// at most.
	Each []int64
}

// HeldBytes measures what the snapshots keep alive that no volume, and no other
// snapshot, refers to any more. It looks only at what was changed elsewhere since
// they were taken, while operations continue; what these do concurrently may count or
// not, and beyond 256 GiB of changes the result is too small. A snapshot that
// does not exist holds nothing.
func (s *Store) HeldBytes(ctx context.Context, snapshots []uint64) (Held, error) {
	h := Held{Each: make([]int64, len(snapshots))}
	roots := make([]blockmap.Root, len(snapshots))
	for i, id := range snapshots {
		n, err := s.Snapshot(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return h, err
		}
		defer n.Release()
		roots[i] = n.state.root
	}
	x := exclusive{table: s.parts.extents, partial: make(map[extent.ID]uint64)}
	if s.opts.CapacityBytes == 0 || s.space.low.Load() {
		x.shares = s.holds.among(s.aliases.among(make(map[segment.ID]bool)))
	}
	owned, err := s.parts.forest.FindOwned(ctx, roots, maxHeldNodes, func(slots []extent.Slot) (int64, error) {
		before := x.blocks
		err := x.leaf(s.parts.extents, slots)
		return (x.blocks - before) * BlockLength, err
	})
	if err != nil {
		return h, err
	}
	h.Total = x.blocks * BlockLength
	for i, r := range roots {
		if h.Each[i], err = owned.Of(r); err != nil {
			return h, err
		}
	}
	return h, nil
}
