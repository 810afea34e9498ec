package backstore

import (
	"context"

	"odx/backstore/blockmap"
)

// extentsStep is how many map nodes are read under the volume's lock at once.
const extentsStep = 64

// Extents calls fn with the mapped and the unmapped parts of a range of bytes,
// in order and side by side, until fn returns false. Parts are cut at blocks of
// 4 KiB and at the range's ends; a part is as long as it can be. The volume can
// change while it runs; each part was true when it was looked at.
func (v *Volume) Extents(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool) error {
	v.mu.RLock()
	err := v.checkRange(off, length)
	v.mu.RUnlock()
	if err != nil || length == 0 {
		return err
	}
	first := uint64(off / BlockLength)
	end := uint64((off + length + BlockLength - 1) / BlockLength)
	var last blockmap.Run
	more := true
	flush := func() {
		lo := max(int64(last.First)*BlockLength, off)
		hi := min(int64(last.First+last.Count)*BlockLength, off+length)
		if more && last.Count > 0 {
			more = fn(Range{Offset: lo, Length: hi - lo}, last.Mapped)
		}
	}
	for first < end && more {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.mu.RLock()
		next, err := v.store.forest.Runs(v.root, first, end-first, extentsStep, func(r blockmap.Run) bool {
			if last.Count > 0 && r.Mapped == last.Mapped {
				last.Count += r.Count
				return true
			}
			flush()
			last = r
			return more
		})
		v.mu.RUnlock()
		if err != nil {
			return err
		}
		first = next
	}
	flush()
	return nil
}
