package vhdxfile

import (
	"context"
	"fmt"

	"odx/vhd/disk"
)

// table is the layout of a BAT (MS-VHDX 2.5): the entries of the payload blocks of a
// chunk are followed by that of its sector bitmap block.
type table struct {
	blocks int64 // payload blocks
	ratio  int64 // payload blocks per chunk
	count  int64 // entries
}

// tableOf returns the layout of the BAT of a disk.
func tableOf(g disk.Geometry, kind disk.Kind) table {
	t := table{blocks: g.Blocks(), ratio: bitmapSectors * g.SectorLength / g.BlockLength}
	t.count = t.blocks + (t.blocks-1)/t.ratio
	if kind == disk.Differencing {
		t.count = (t.blocks + t.ratio - 1) / t.ratio * (t.ratio + 1)
	}
	return t
}

// length returns the length of the entries in bytes.
func (t table) length() int64 { return t.count * 8 }

// payload and bitmap return the indexes of the entries of payload block i and of the
// sector bitmap block of its chunk.
func (t table) payload(i int64) int64 { return i + i/t.ratio }
func (t table) bitmap(i int64) int64  { return i/t.ratio*(t.ratio+1) + t.ratio }

// role is the kind of block that an entry describes.
type role uint8

const (
	ofNothing role = iota // in the last chunk, after the last block
	ofPayload
	ofBitmap
)

// at returns the role of an entry, and the number of its payload block or sector bitmap
// block.
func (t table) at(index int64) (i int64, r role) {
	chunk, n := index/(t.ratio+1), index%(t.ratio+1)
	switch i = chunk*t.ratio + n; {
	case n == t.ratio:
		return chunk, ofBitmap
	case i < t.blocks:
		return i, ofPayload
	}
	return i, ofNothing
}

// place returns the region of the payload block or sector bitmap block of an entry e,
// and the number of bytes that the file must have of it. The length is zero if the
// block has no place.
func (f *File) place(index int64, e uint64) (at region, needed int64) {
	switch i, r := f.table.at(index); {
	case r == ofPayload && (stateOf(e) == fullyPresent || stateOf(e) == partiallyPresent):
		// The last block may extend beyond the disk and need not be complete.
		return region{int64(offsetOf(e)), f.meta.BlockLength}, min(f.meta.BlockLength, f.meta.Size-i*f.meta.BlockLength)
	case r == ofBitmap && f.meta.kind == disk.Differencing && stateOf(e) == fullyPresent:
		return region{int64(offsetOf(e)), bitmapLength}, bitmapLength
	}
	return region{}, 0
}

// claim records the used ranges of the file and reports errors of the BAT.
func (f *File) claim(ctx context.Context, report reporter) error {
	f.space.take(0, headerSection)
	used := f.regions.all()
	if f.headers.logLength > 0 {
		used = append(used, region{int64(f.headers.logOffset), int64(f.headers.logLength)})
	}
	for _, r := range used {
		if !f.space.take(r.offset, r.length) {
			return bad("regions, or a region and the log, overlap at %d", r.offset)
		}
	}
	unallocated := int64(0)
	err := f.bat.each(ctx, func(index int64, e uint64) error {
		if e == 0 && f.meta.kind != disk.Fixed {
			return nil // the normal case
		}
		if err := f.checkState(ctx, index, e, report); err != nil {
			return err
		}
		at, needed := f.place(index, e)
		if needed == 0 {
			if _, r := f.table.at(index); r == ofPayload {
				unallocated++
			}
			return nil
		}
		switch {
		// The offset is a converted 64-bit value and may be negative.
		case at.offset < headerSection || at.offset > f.view.size || needed > f.view.size-at.offset:
			return report(fatal, "%s exceeds the file: %d bytes at %d of %d", f.describe(index), needed, uint64(at.offset), f.view.size)
		case !f.space.take(at.offset, at.length):
			return report(fatal, "%s overlaps another block, a region or the log at %d", f.describe(index), at.offset)
		}
		return nil
	})
	if err == nil && f.meta.kind == disk.Fixed && unallocated > 0 {
		return report(harmless, "%d blocks of the fixed disk are not allocated", unallocated)
	}
	return err
}

// checkState reports errors of the state of an entry.
func (f *File) checkState(ctx context.Context, index int64, e uint64, report reporter) error {
	i, r := f.table.at(index)
	differencing := f.meta.kind == disk.Differencing
	switch s := stateOf(e); {
	case r == ofBitmap && !differencing && e != 0:
		// Old versions of one program write such entries, which have no effect.
		return report(harmless, "%s has an entry, which only a differencing disk uses", f.describe(index))
	case r == ofBitmap && differencing && s != notPresent && s != fullyPresent, r == ofPayload && s == 4:
		return report(fatal, "%s has the reserved state %d", f.describe(index), s)
	case r != ofPayload || s != partiallyPresent:
		return nil
	case !differencing:
		return report(fatal, "%s is partially present, but the disk has no parent", f.describe(index))
	}
	bitmap, err := f.bat.get(ctx, f.table.bitmap(i))
	if err == nil && stateOf(bitmap) != fullyPresent {
		err = report(fatal, "%s is partially present, but its sector bitmap is missing", f.describe(index))
	}
	return err
}

// describe returns the name of an entry's block.
func (f *File) describe(index int64) string {
	i, r := f.table.at(index)
	if r == ofBitmap {
		return fmt.Sprintf("sector bitmap %d", i)
	}
	return fmt.Sprintf("block %d", i)
}
