package vhdxfile

import (
	"context"
	"fmt"

	"odx/vhd/disk"
)

// table is the shape of a BAT (MS-VHDX 2.5): behind the entries of the payload
// blocks of a chunk is that of its sector bitmap block.
type table struct {
	blocks int64 // payload blocks
	ratio  int64 // payload blocks of a chunk
	count  int64 // entries
}

// tableOf returns the shape of the BAT of a disk.
func tableOf(g disk.Geometry, kind disk.Kind) table {
	t := table{blocks: g.Blocks(), ratio: bitmapSectors * g.SectorLength / g.BlockLength}
	t.count = t.blocks + (t.blocks-1)/t.ratio
	if kind == disk.Differencing {
		t.count = (t.blocks + t.ratio - 1) / t.ratio * (t.ratio + 1)
	}
	return t
}

// length returns what the entries take, in bytes.
func (t table) length() int64 { return t.count * 8 }

// payload and bitmap return the indexes of the entries of payload block i and of the
// sector bitmap block of its chunk.
func (t table) payload(i int64) int64 { return i + i/t.ratio }
func (t table) bitmap(i int64) int64  { return i/t.ratio*(t.ratio+1) + t.ratio }

// role is what an entry is of.
type role uint8

const (
	ofNothing role = iota // in the last chunk, behind the last block
	ofPayload
	ofBitmap
)

// at returns what an entry is of, and the number of that payload block or sector
// bitmap block.
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

// place returns where the payload block or sector bitmap block of an entry e is, and
// how many bytes of it the file must have; a length of zero if it has no place.
func (f *File) place(index int64, e uint64) (at region, needed int64) {
	switch i, r := f.table.at(index); {
	case r == ofPayload && (stateOf(e) == fullyPresent || stateOf(e) == partiallyPresent):
		// The last block may reach beyond the disk, and then need not be all there.
		return region{int64(offsetOf(e)), f.meta.BlockLength}, min(f.meta.BlockLength, f.meta.Size-i*f.meta.BlockLength)
	case r == ofBitmap && f.meta.kind == disk.Differencing && stateOf(e) == fullyPresent:
		return region{int64(offsetOf(e)), bitmapLength}, bitmapLength
	}
	return region{}, 0
}

// claim notes what the file is used for, and finds what is wrong with the BAT.
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
			return nil // the usual one
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
		// The offset was taken from 64 bits, and may be negative now.
		case at.offset < headerSection || at.offset > f.view.size || needed > f.view.size-at.offset:
			return report(fatal, "%s is not within the file: its %d bytes are to be at %d of %d", f.describe(index), needed, uint64(at.offset), f.view.size)
		case !f.space.take(at.offset, at.length):
			return report(fatal, "%s overlaps another block, a region or the log at %d", f.describe(index), at.offset)
		}
		return nil
	})
	if err == nil && f.meta.kind == disk.Fixed && unallocated > 0 {
		return report(harmless, "%d blocks of the fixed disk have no place in the file", unallocated)
	}
	return err
}

// checkState finds what is wrong with the state of an entry.
func (f *File) checkState(ctx context.Context, index int64, e uint64, report reporter) error {
	i, r := f.table.at(index)
	differencing := f.meta.kind == disk.Differencing
	switch s := stateOf(e); {
	case r == ofBitmap && !differencing && e != 0:
		// Old versions of one program leave such entries; nothing looks at them.
		return report(harmless, "%s has an entry, which only a differencing disk needs", f.describe(index))
	case r == ofBitmap && differencing && s != notPresent && s != fullyPresent, r == ofPayload && s == 4:
		return report(fatal, "%s has the reserved state %d", f.describe(index), s)
	case r != ofPayload || s != partiallyPresent:
		return nil
	case !differencing:
		return report(fatal, "%s is partially present, but there is no parent", f.describe(index))
	}
	bitmap, err := f.bat.get(ctx, f.table.bitmap(i))
	if err == nil && stateOf(bitmap) != fullyPresent {
		err = report(fatal, "%s is partially present, but its sector bitmap is missing", f.describe(index))
	}
	return err
}

// describe names an entry.
func (f *File) describe(index int64) string {
	i, r := f.table.at(index)
	if r == ofBitmap {
		return fmt.Sprintf("sector bitmap %d", i)
	}
	return fmt.Sprintf("block %d", i)
}
