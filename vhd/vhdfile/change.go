package vhdfile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"odx/vhd/disk"
)

// A change of blocks has three steps, ordered by barriers: extend the file and write
// the footer at its new end; write the bitmaps; write the BAT entries. A crash after
// the first or second step leaves unused space.

// entry is a new BAT entry of a block.
type entry struct {
	block  int64
	sector uint32
}

// Allocate implements disk.Table.
func (f *File) Allocate(ctx context.Context, blocks []int64) error {
	if err := f.checkChange(blocks...); err != nil || f.kind == disk.Fixed {
		return err
	}
	absent, _ := f.split(blocks)
	return f.add(ctx, absent, nil, f.kind != disk.Differencing)
}

// Complete implements disk.Table.
func (f *File) Complete(ctx context.Context, blocks []int64) error {
	if err := f.checkChange(blocks...); err != nil || f.kind == disk.Fixed {
		return err
	}
	absent, partial := f.split(blocks)
	return f.add(ctx, absent, partial, true)
}

// split returns the Absent and the Partial ones of blocks, without duplicates.
func (f *File) split(blocks []int64) (absent, partial []int64) {
	seen := make(map[int64]struct{}, len(blocks))
	for _, i := range blocks {
		if _, again := seen[i]; again {
			continue
		}
		seen[i] = struct{}{}
		switch f.block(i).State {
		case disk.Absent:
			absent = append(absent, i)
		case disk.Partial:
			partial = append(partial, i)
		}
	}
	return absent, partial
}

// add allocates the absent blocks, and sets all bits in the bitmaps of the partial ones
// and, if full, of the absent ones.
func (f *File) add(ctx context.Context, absent, partial []int64, full bool) error {
	places, err := f.takePlaces(ctx, len(absent))
	if err != nil {
		return err
	}
	entries := make([]entry, len(absent))
	var bitmaps []int64
	for k, i := range absent {
		entries[k] = entry{i, uint32(places[k] / sectorLength)}
		if full {
			bitmaps = append(bitmaps, places[k])
		}
	}
	for _, i := range partial {
		bitmaps = append(bitmaps, f.bitmapAt(i))
	}
	if err := f.fillBitmaps(ctx, bitmaps); err != nil {
		return err
	}
	if err := f.writeBAT(ctx, entries); err != nil {
		return err
	}
	if full {
		for _, i := range slices.Concat(absent, partial) {
			f.full.add(i)
		}
	}
	return nil
}

// fillBitmaps sets all bits of the bitmaps at places, after a barrier.
func (f *File) fillBitmaps(ctx context.Context, places []int64) error {
	if len(places) == 0 {
		return nil
	}
	if err := f.c.Barrier(ctx); err != nil {
		return fmt.Errorf("vhd: barrier: %w", err)
	}
	ones := bytes.Repeat([]byte{0xFF}, int(bitmapLength(f.blockLength)))
	for _, at := range places {
		if err := f.c.WriteAt(ctx, ones, at); err != nil {
			return fmt.Errorf("vhd: write bitmap: %w", err)
		}
	}
	return nil
}

// writeBAT writes entries after a barrier. It writes nearby entries in one write.
func (f *File) writeBAT(ctx context.Context, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := f.c.Barrier(ctx); err != nil {
		return fmt.Errorf("vhd: barrier: %w", err)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.block, b.block) })
	const near, most = 1024, 1 << 18 // entries
	for len(entries) > 0 {
		n, first := 1, entries[0].block
		for n < len(entries) && entries[n].block-entries[n-1].block <= near && entries[n].block-first < most {
			n++
		}
		if err := f.writeEntries(ctx, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// writeEntries writes the part of the BAT from the first to the last of entries, which
// are sorted.
func (f *File) writeEntries(ctx context.Context, entries []entry) error {
	first, end := entries[0].block, entries[len(entries)-1].block+1
	part := slices.Clone(f.bat[first:end])
	for _, e := range entries {
		part[e.block-first] = e.sector
	}
	p := make([]byte, 0, 4*len(part))
	for _, sector := range part {
		p = binary.BigEndian.AppendUint32(p, sector)
	}
	if err := f.c.WriteAt(ctx, p, int64(f.header.tableOffset)+4*first); err != nil {
		return fmt.Errorf("vhd: write BAT: %w", err)
	}
	copy(f.bat[first:end], part)
	return nil
}

// Free implements disk.Table. In a differencing disk the blocks remain, or become,
// allocated: the format has no other way to make them zeros instead of the parent's
// data.
func (f *File) Free(ctx context.Context, blocks []int64) error {
	if err := f.checkChange(blocks...); err != nil {
		return err
	}
	if f.kind == disk.Dynamic {
		return f.drop(ctx, blocks)
	}
	if err := f.unmapPayload(ctx, blocks); err != nil {
		return err
	}
	if f.kind == disk.Fixed {
		return nil
	}
	absent, partial := f.split(blocks)
	return f.add(ctx, absent, partial, true)
}

// unmapPayload unmaps the payload of the allocated blocks, which then reads as zeros.
func (f *File) unmapPayload(ctx context.Context, blocks []int64) error {
	blocks = slices.Clone(blocks)
	slices.Sort(blocks)
	var run fileRange
	for _, i := range append(blocks, -1) {
		var e fileRange
		if i >= 0 && f.block(i).State != disk.Absent {
			e = fileRange{off: f.block(i).Offset, length: f.blockLength}
			if f.kind == disk.Fixed { // the last block may overlap the footer
				e.length = min(e.length, f.size-e.off)
			}
		}
		if e.length > 0 && e.off == run.end() {
			run.length += e.length
			continue
		}
		if run.length > 0 {
			if err := f.c.Unmap(ctx, run.off, run.length); err != nil {
				return fmt.Errorf("vhd: unmap payload: %w", err)
			}
		}
		run = e
	}
	return nil
}

// drop makes blocks of a dynamic disk Absent.
func (f *File) drop(ctx context.Context, blocks []int64) error {
	var entries []entry
	var free []int64
	seen := make(map[int64]struct{}, len(blocks))
	for _, i := range blocks {
		if _, again := seen[i]; again || f.bat[i] == unused {
			continue
		}
		seen[i] = struct{}{}
		entries = append(entries, entry{i, unused})
		free = append(free, f.bitmapAt(i))
	}
	if len(entries) == 0 {
		return nil
	}
	if err := f.writeBAT(ctx, entries); err != nil {
		return err
	}
	if err := f.c.Barrier(ctx); err != nil {
		return fmt.Errorf("vhd: barrier: %w", err)
	}
	slices.Sort(free)
	slices.Reverse(free)
	for _, at := range free {
		if err := f.c.Unmap(ctx, at, f.placeLength()); err != nil {
			return fmt.Errorf("vhd: unmap block: %w", err)
		}
		f.places = append(f.places, place{off: at, zeros: true})
	}
	return nil
}

// sectors returns the number of sectors of block i that are part of the disk.
func (f *File) sectors(i int64) int64 {
	return min(f.blockLength, f.size-i*f.blockLength) / sectorLength
}

// checkSectors returns an error if a range of sectors is not in a block.
func (f *File) checkSectors(i, first, count int64) error {
	if n := f.blockLength / sectorLength; first < 0 || count < 0 || first > n || count > n-first {
		return fmt.Errorf("vhd: %d sectors from %d on of block %d of %d sectors", count, first, i, n)
	}
	return nil
}

// Present implements disk.Table.
func (f *File) Present(ctx context.Context, i, first, count int64) (disk.Bits, error) {
	if err := f.checkSectors(i, first, count); err != nil {
		return nil, err
	}
	result := make(disk.Bits, (count+7)/8)
	switch f.block(i).State {
	case disk.Absent:
		return result, nil
	case disk.Full:
		for k := range count {
			result.Set(k)
		}
		return result, nil
	}
	if count == 0 {
		return result, nil
	}
	from, end := first/8, (first+count+7)/8
	n := f.sectors(i)
	if bitmapLength(f.blockLength) <= pageLength {
		// The whole bitmap takes one read, too. If all bits are set, later calls read
		// nothing.
		from, end = 0, max(end, (n+7)/8)
	}
	p := make([]byte, end-from)
	if err := f.r.ReadAt(ctx, p, f.bitmapAt(i)+from); err != nil {
		return nil, fmt.Errorf("vhd: read bitmap of block %d: %w", i, err)
	}
	shiftBits(result, p[first/8-from:], first%8, count)
	if from == 0 && end*8 >= n {
		all := make(disk.Bits, (n+7)/8)
		if shiftBits(all, p, 0, n); allSet(all, n) {
			f.full.add(i)
		}
	}
	return result, nil
}

// shiftBits sets dst to count bits of src, starting at bit shift. In src the highest
// bit of a byte is the first.
func shiftBits(dst disk.Bits, src []byte, shift, count int64) {
	for k := range dst {
		v := uint16(bits.Reverse8(src[k]))
		if k+1 < len(src) {
			v |= uint16(bits.Reverse8(src[k+1])) << 8
		}
		dst[k] = byte(v >> shift)
	}
	if rest := count % 8; rest != 0 {
		dst[len(dst)-1] &= 1<<rest - 1
	}
}

// allSet reports whether the first n bits are set.
func allSet(b disk.Bits, n int64) bool {
	set, length := b.Run(0, n)
	return set && length == n
}

// SetPresent implements disk.Table.
func (f *File) SetPresent(ctx context.Context, i, first, count int64) error {
	if err := f.checkChange(i); err != nil {
		return err
	}
	if err := f.checkSectors(i, first, count); err != nil || count == 0 {
		return err
	}
	switch f.block(i).State {
	case disk.Full:
		return nil
	case disk.Absent:
		return fmt.Errorf("vhd: block %d is not allocated", i)
	}
	n := f.sectors(i)
	all := make([]byte, (max(n, first+count)+7)/8)
	if err := f.r.ReadAt(ctx, all, f.bitmapAt(i)); err != nil {
		return fmt.Errorf("vhd: read bitmap of block %d: %w", i, err)
	}
	changed := false
	for k := first; k < first+count; k++ {
		bit := byte(0x80) >> (k % 8)
		changed = changed || all[k/8]&bit == 0
		all[k/8] |= bit
	}
	if changed {
		// The sectors must be durable before their bits.
		if err := f.c.Barrier(ctx); err != nil {
			return fmt.Errorf("vhd: barrier: %w", err)
		}
		from, end := first/8, (first+count+7)/8
		if err := f.c.WriteAt(ctx, all[from:end], f.bitmapAt(i)+from); err != nil {
			return fmt.Errorf("vhd: write bitmap of block %d: %w", i, err)
		}
	}
	present := make(disk.Bits, len(all))
	shiftBits(present, all, 0, n)
	if allSet(present, n) {
		f.full.add(i)
	}
	return nil
}
