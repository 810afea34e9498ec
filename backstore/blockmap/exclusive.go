package blockmap

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/refs"
)

// SharedNodes returns the stored nodes that have more than one reference. Nodes below
// them are shared too, but their counts rise only when the shared parent is copied, so
// the set is small.
func SharedNodes(ctx context.Context, kv meta.Reader) (map[uint64]bool, error) {
	shared := make(map[uint64]bool)
	err := refs.Scan(kv, countKind, func(first uint64, extra []int64, err error) error {
		for i, n := range extra {
			if n != 0 {
				shared[first+uint64(i)] = true
			}
		}
		return cmp.Or(err, ctx.Err())
	})
	return shared, err
}

// ExclusiveLeaves calls fn with the slots of each stored leaf that only this tree
// reaches. fn must neither retain nor modify them.
func ExclusiveLeaves(ctx context.Context, kv meta.Reader, r Root, shared map[uint64]bool, fn func(slots []extent.Slot) error) error {
	if r.Node == 0 || shared[r.Node] {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	value, err := kv.Get(binary.BigEndian.AppendUint64([]byte{NodePrefix}, r.Node))
	if err != nil {
		return fmt.Errorf("map node %d: %w", r.Node, err)
	}
	n, err := decodeNode(value)
	if err != nil {
		return fmt.Errorf("map node %d: %w", r.Node, err)
	}
	if n.level != r.Level {
		return fmt.Errorf("%w: node %d has level %d, want %d", ErrInconsistent, r.Node, n.level, r.Level)
	}
	if n.level == 0 {
		return fn(n.slots[:])
	}
	for _, child := range n.slots {
		if err := ExclusiveLeaves(ctx, kv, Root{Node: uint64(child), Level: n.level - 1}, shared, fn); err != nil {
			return err
		}
	}
	return nil
}
