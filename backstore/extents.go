package backstore

import (
	"context"
	"fmt"

	"odx/backstore/blockmap"
)

// extentsStep is how many map nodes are read under the volume's lock at once.
const extentsStep = 64

// Extents calls fn with the mapped and the unmapped parts of a range of bytes,
// in order and without gaps, until fn returns false. Parts are split at blocks of
// 4 KiB and at the range's ends; a part is as long as it can be. The volume can
// change while it runs; each part was true when its map was read.
func (v *Volume) Extents(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool) error {
	v.mu.RLock()
	err := v.checkRange(off, length)
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	_, err = extentsOf(ctx, off, length, fn, func(first, count uint64, run func(blockmap.Run) bool) (uint64, error) {
		v.mu.RLock()
		defer v.mu.RUnlock()
		if err := v.stale.Check(first, count); err != nil {
			return first, err
		}
		return v.store.parts.forest.Runs(v.root, first, count, extentsStep, run)
	})
	return err
}

// Extents is Volume.Extents of the snapshot's bytes, which never change. Parts are
// split where its ranges end, too.
func (n *Snapshot) Extents(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool) error {
	n.held.Use()
	if !(Range{Offset: off, Length: length}).In(n.state.length) {
		return fmt.Errorf("%w: snapshot %d has %d bytes, wanted %d at %d", ErrRange, n.state.id, n.state.length, length, off)
	}
	for more := true; length > 0 && more; {
		at, piece := n.state.locate(off)
		piece = min(piece, length)
		var err error
		more, err = extentsOf(ctx, at, piece, func(part Range, mapped bool) bool {
			part.Offset += off - at
			return fn(part, mapped)
		}, func(first, count uint64, run func(blockmap.Run) bool) (uint64, error) {
			if err := n.state.stale.Check(first, count); err != nil {
				return first, err
			}
			return n.store.parts.forest.Runs(n.state.root, first, count, extentsStep, run)
		})
		if err != nil {
			return err
		}
		off, length = off+piece, length-piece
	}
	return nil
}

// extentsOf joins what walk finds in a tree, a few nodes at a time, to parts of a
// range. It reports whether fn wants more.
func extentsOf(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool,
	walk func(first, count uint64, run func(blockmap.Run) bool) (next uint64, err error)) (more bool, err error) {
	first := uint64(off / BlockLength)
	end := uint64((off + length + BlockLength - 1) / BlockLength)
	var last blockmap.Run
	more = true
	flush := func() {
		lo := max(int64(last.First)*BlockLength, off)
		hi := min(int64(last.First+last.Count)*BlockLength, off+length)
		if more && last.Count > 0 {
			more = fn(Range{Offset: lo, Length: hi - lo}, last.Mapped)
		}
	}
	for length > 0 && first < end && more {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		first, err = walk(first, end-first, func(r blockmap.Run) bool {
			if last.Count > 0 && r.Mapped == last.Mapped {
				last.Count += r.Count
				return true
			}
			flush()
			last = r
			return more
		})
		if err != nil {
			return false, err
		}
	}
	flush()
	return more, nil
}
