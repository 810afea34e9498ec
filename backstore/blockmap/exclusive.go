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

// SharedNodes returns the stored nodes that have more than one reference. What
// is below them is shared too, but counted only when one of those who share it
// changes it: there are few of them.
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

// ExclusiveLeaves calls fn with the slots of each stored leaf that nothing but
// this tree reaches. fn must neither keep nor change them.
func ExclusiveLeaves(ctx context.Context, kv meta.Reader, r Root, shared map[uint64]bool, fn func(slots []extent.Slot) error) error {
	if r.Node == 0 || shared[r.Node] {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	value, err := kv.Get(binary.BigEndian.AppendUint64([]byte{nodePrefix}, r.Node))
	if err != nil {
		return fmt.Errorf("map node %d: %w", r.Node, err)
	}
	n, err := decodeNode(value)
	if err != nil {
		return fmt.Errorf("map node %d: %w", r.Node, err)
	}
	if n.level != r.Level {
		return fmt.Errorf("%w: node %d of level %d stands where one of level %d should", ErrInconsistent, r.Node, n.level, r.Level)
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
