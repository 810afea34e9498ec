package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"odx/backstore/extent"
	"odx/blockdev"
)

// MaximumAtomicWrite is blockdev.MaximumAtomicWrite: one journal record, and one
// change of the map.
const MaximumAtomicWrite = blockdev.MaximumAtomicWrite

// A plan holds just that many blocks.
var _ [planBlocks * BlockLength]struct{} = [MaximumAtomicWrite]struct{}{}

// blocksTouched returns how many blocks the bytes [off, off+length) lie in.
func blocksTouched(off int64, length int) int {
	return (int(off%BlockLength) + length + BlockLength - 1) / BlockLength
}

// WriteAtomic writes p at off in one step: neither a concurrent read nor
// a power cut shows a part of it. off and the length must be multiples of
// BlockLength, and the length at most MaximumAtomicWrite. A read of more than
// 512 KiB that meets such a write is done a second time.
func (v *Volume) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	if err := v.checkWritable(); err != nil {
		return err
	}
	if off%BlockLength != 0 || len(p)%BlockLength != 0 || len(p) > MaximumAtomicWrite {
		return fmt.Errorf("%w: atomic write of %d bytes at %d", ErrInvalid, len(p), off)
	}
	v.mu.RLock()
	err := v.checkRange(off, int64(len(p)))
	v.mu.RUnlock()
	if err != nil || len(p) == 0 {
		return err
	}
	_, err = v.writeBlocks(ctx, p, off, blocksWrite{atomic: true})
	return err
}

// Update changes a range of at most MaximumAtomicWrite bytes, counted in whole
// blocks, in one step: fn gets what it holds, and changes that in place. fn is
// called again where another writer changed it concurrently.
func (v *Volume) Update(ctx context.Context, off int64, length int, fn func(data []byte)) error {
	_, err := v.update(ctx, off, length, func(data []byte) int {
		fn(data)
		return -1
	})
	return err
}

// CompareAndWrite writes p at off if the range holds exactly compare, in one
// atomic step, and returns -1; otherwise it writes nothing and returns the
// index of the first byte that differs. len(compare) must equal len(p) and the
// blocks touched must be no more than MaximumAtomicWrite.
func (v *Volume) CompareAndWrite(ctx context.Context, compare, p []byte, off int64) (mismatch int, err error) {
	if len(compare) != len(p) {
		return 0, fmt.Errorf("%w: compare %d bytes, write %d", ErrInvalid, len(compare), len(p))
	}
	return v.update(ctx, off, len(p), func(data []byte) int {
		for i := range data {
			if data[i] != compare[i] {
				return i
			}
		}
		copy(data, p)
		return -1
	})
}

// update reads a range, has fn change it, and writes it if no other writer changed it in
// between. When fn returns something else than -1, nothing is written and update
// returns that.
func (v *Volume) update(ctx context.Context, off int64, length int, fn func(data []byte) int) (result int, err error) {
	if err := v.checkWritable(); err != nil {
		return 0, err
	}
	v.mu.RLock()
	err = v.checkRange(off, int64(length))
	v.mu.RUnlock()
	if err != nil || length == 0 {
		return -1, err
	}
	blocks := blocksTouched(off, length)
	if blocks > planBlocks {
		return 0, fmt.Errorf("%w: %d bytes at %d in one step", ErrInvalid, length, off)
	}
	base := off &^ (BlockLength - 1)
	buf := make([]byte, blocks*BlockLength)
	slots := make([]extent.Slot, blocks)
	for {
		changed, err := v.readBlocks(ctx, buf, base, slots)
		if err != nil {
			return 0, err
		}
		if result := fn(buf[off-base:][:length]); result != -1 {
			return result, v.store.reader.settle(ctx, changed)
		}
		done, err := v.writeBlocks(ctx, buf, base, blocksWrite{expect: slots, atomic: true})
		if err != nil {
			return 0, err
		}
		if done {
			return -1, nil
		}
	}
}

// readAtOnce fills p from off as ReadAt does, but looks all of it up in one step,
// for which it needs memory.
func (v *Volume) readAtOnce(ctx context.Context, p []byte, off int64) error {
	blocks := blocksTouched(off, len(p))
	locs, slots := make([]extent.Location, blocks), make([]extent.Slot, blocks)
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		changed, err := (tree{volume: v}).lookup(&v.store.reader, uint64(off/BlockLength), locs, slots)
		if err != nil {
			return err
		}
		bad, err := v.store.reader.fetchBytes(locs, int(off%BlockLength), p)
		switch {
		case err == nil:
			return v.store.reader.settle(ctx, changed)
		case errors.Is(err, fs.ErrNotExist) && tries < readTries:
		default:
			return v.store.reader.readError(ctx, tree{volume: v}, off&^(BlockLength-1)+int64(bad)*BlockLength, slots[bad], err)
		}
	}
}
