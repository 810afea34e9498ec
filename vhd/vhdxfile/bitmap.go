package vhdxfile

import (
	"context"
	"fmt"
	"slices"

	"odx/vhd/disk"
)

// sectors returns the number of logical sectors in block i that are within the disk.
func (f *File) sectors(i int64) int64 {
	g := f.meta.Geometry
	return min(g.BlockLength, g.Size-i*g.BlockLength) / g.SectorLength
}

// bitsAt returns the offset of the bits of block i, whose sector bitmap block must
// exist, and their length in whole bytes, since a block has at least 256 sectors.
func (f *File) bitsAt(ctx context.Context, i int64) (offset, length int64, err error) {
	length = f.meta.BlockLength / f.meta.SectorLength / 8
	e, err := f.bat.get(ctx, f.table.bitmap(i))
	return int64(offsetOf(e)) + i%f.table.ratio*length, length, err
}

// checkSectors returns an error if block i does not have the sectors.
func (f *File) checkSectors(i, first, count int64) error {
	if i < 0 || i >= f.table.blocks || first < 0 || count < 0 || first > f.sectors(i) || count > f.sectors(i)-first {
		return fmt.Errorf("sectors [%d, %d) of block %d are out of range", first, first+count, i)
	}
	return nil
}

// Present implements disk.Table.
func (f *File) Present(ctx context.Context, i, first, count int64) (disk.Bits, error) {
	if err := f.checkSectors(i, first, count); err != nil {
		return nil, err
	}
	bits := make(disk.Bits, (count+7)/8)
	b, err := f.Block(ctx, i)
	if err != nil {
		return nil, err
	}
	switch b.State {
	case disk.Full:
		for n := range count {
			bits.Set(n)
		}
	case disk.Partial:
		at, _, err := f.bitsAt(ctx, i)
		if err != nil {
			return nil, err
		}
		p := make(disk.Bits, (first+count+7)/8-first/8)
		if err := f.view.readAt(ctx, p, at+first/8); err != nil {
			return nil, fmt.Errorf("sector bitmap of block %d: %w", i, err)
		}
		if first%8 == 0 {
			return p, nil
		}
		for n := range count {
			if p.Get(first%8 + n) {
				bits.Set(n)
			}
		}
	}
	return bits, nil
}

// SetPresent implements disk.Table.
func (f *File) SetPresent(ctx context.Context, i, first, count int64) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	if err := f.checkSectors(i, first, count); err != nil {
		return err
	}
	b, err := f.Block(ctx, i)
	if err != nil {
		return err
	}
	switch b.State {
	case disk.Full:
		return nil
	case disk.Absent, disk.Zero:
		return fmt.Errorf("block %d is not allocated", i)
	}
	// Whole sectors of the file, which may have bits of other blocks.
	at, length, err := f.bitsAt(ctx, i)
	if err != nil {
		return err
	}
	from := at &^ (sectorLength - 1)
	p := make(disk.Bits, roundUp(at+length, sectorLength)-from)
	if err := f.view.readAt(ctx, p, from); err != nil {
		return fmt.Errorf("sector bitmap of block %d: %w", i, err)
	}
	bits := p[at-from:]
	changed := false
	for n := first; n < first+count; n++ {
		changed = changed || !bits.Get(n)
		bits.Set(n)
	}
	if !changed {
		return nil
	}
	// The payload must be durable before the log refers to it.
	if err := f.barrier(ctx); err != nil {
		return err
	}
	if set, run := bits.Run(0, f.sectors(i)); set && run == f.sectors(i) {
		_, err := f.update(ctx, []change{{f.table.payload(i), entry(fullyPresent, b.Offset)}})
		return err
	}
	first += (at - from) * 8
	low, high := first/8/sectorLength*sectorLength, roundUp((first+count+7)/8, sectorLength)
	return f.commit(ctx, split(p[low:high], from+low))
}

// split splits p, the new contents at offset, into pieces of a sector.
func split(p []byte, offset int64) []piece {
	var pieces []piece
	for ; len(p) > 0; p, offset = p[sectorLength:], offset+sectorLength {
		pieces = append(pieces, piece{offset, sectorLength, p[:sectorLength:sectorLength]})
	}
	return pieces
}

// clearBits clears the bits of blocks that are not partially present. The bits have no
// meaning there, but another program may have left them set.
func (f *File) clearBits(ctx context.Context, blocks []int64) error {
	blocks = slices.Sorted(slices.Values(blocks))
	for len(blocks) > 0 {
		// The blocks of one sector bitmap block.
		n := 1
		for n < len(blocks) && f.table.bitmap(blocks[n]) == f.table.bitmap(blocks[0]) {
			n++
		}
		if err := f.clearBitsOfChunk(ctx, blocks[:n]); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

func (f *File) clearBitsOfChunk(ctx context.Context, blocks []int64) error {
	from, length, err := f.bitsAt(ctx, blocks[0])
	if err != nil {
		return err
	}
	// The bits of the blocks of a chunk are contiguous.
	first := from - blocks[0]%f.table.ratio*length
	bitsOf := func(i int64) int64 { return first + i%f.table.ratio*length }
	to := bitsOf(blocks[len(blocks)-1])
	from, to = from&^(sectorLength-1), roundUp(to+length, sectorLength)
	p := make([]byte, to-from)
	if err := f.view.readAt(ctx, p, from); err != nil {
		return fmt.Errorf("sector bitmap of block %d: %w", blocks[0], err)
	}
	dirty := make(map[int64]bool)
	for _, i := range blocks {
		at := bitsOf(i)
		bits := p[at-from:][:length]
		for n, b := range bits {
			if b != 0 {
				dirty[(at-from+int64(n))/sectorLength] = true
			}
		}
		clear(bits)
	}
	pieces := slices.DeleteFunc(split(p, from), func(p piece) bool { return !dirty[(p.offset-from)/sectorLength] })
	for part := range slices.Chunk(pieces, maxSectors) {
		if err := f.commit(ctx, part); err != nil {
			return err
		}
	}
	return nil
}
