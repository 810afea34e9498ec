package vhdfile

import (
	"context"
	"fmt"
	"slices"

	"odx/vhd/disk"
)

// findPlaces finds unused ranges for blocks, which freed blocks and crashes while
// blocks were added leave. It returns an error if ranges overlap.
func (f *File) findPlaces() error {
	if f.kind == disk.Fixed {
		return nil
	}
	// An unknown structure may be in what seems to be a gap.
	limit := 0
	if f.header.dataOffset == noOffset {
		for _, sector := range f.bat {
			if sector == unused {
				limit++
			}
		}
	}
	var twice error
	f.survey(
		func(off, length int64) {
			for _, at := range f.placesIn(off, length, limit-len(f.places)) {
				f.places = append(f.places, place{off: at})
			}
		},
		func(a, b fileRange) {
			if twice == nil {
				twice = invalid("%s; open it for reading to copy the undamaged part", f.usedTwice(a, b))
			}
		})
	slices.Reverse(f.places)
	return twice
}

// placesIn returns up to limit places in a gap: aligned for mapping, or unaligned if no
// aligned place fits.
func (m *image) placesIn(off, length int64, limit int) (places []int64) {
	end := off + length
	for len(places) < limit {
		at := m.alignedPlace(off)
		if at+m.placeLength() > end || at/sectorLength >= int64(unused) {
			break
		}
		places = append(places, at)
		off = at + m.placeLength()
	}
	if at := roundUp(off, sectorLength); len(places) == 0 && limit > 0 && at+m.placeLength() <= end && at/sectorLength < int64(unused) {
		places = append(places, at)
	}
	return places
}

// alignedPlace returns the first offset from off on at which the payload of a block,
// after its bitmap, is aligned for mapping.
func (m *image) alignedPlace(off int64) int64 {
	bitmap := bitmapLength(m.blockLength)
	return roundUp(off+bitmap, pageLength) - bitmap
}

// takePlaces returns places for n blocks, with bitmaps and payload of zeros: free ones
// first, then new ones by moving the footer. It does not change the disk's content.
// Places that are taken and not used are free again after the file is reopened.
func (f *File) takePlaces(ctx context.Context, n int) ([]int64, error) {
	old := min(n, len(f.places))
	var grown []int64
	end := f.endAt
	for range n - old {
		at := f.alignedPlace(end)
		if at/sectorLength >= int64(unused) {
			return nil, fmt.Errorf("vhd: add a block: the file is full: a BAT addresses the first %d bytes of a file", int64(unused)*sectorLength)
		}
		grown = append(grown, at)
		end = at + f.placeLength()
	}
	var taken []int64
	for range old {
		p := f.places[len(f.places)-1]
		f.places = f.places[:len(f.places)-1]
		if !p.zeros {
			if err := f.c.Unmap(ctx, p.off, f.placeLength()); err != nil {
				return nil, fmt.Errorf("vhd: unmap a place at %d: %w", p.off, err)
			}
		}
		taken = append(taken, p.off)
	}
	if len(grown) > 0 {
		if err := f.moveFooter(ctx, end); err != nil {
			return nil, fmt.Errorf("vhd: extend the file: %w", err)
		}
	}
	return append(taken, grown...), nil
}

// moveFooter extends the file and moves its footer to offset to. Until the footer is
// written, the copy at 0 is valid.
func (f *File) moveFooter(ctx context.Context, to int64) error {
	// Bytes after the footer, of a failed attempt, must not become payload.
	if behind := f.endAt + footerLength; f.c.Size() > behind {
		if err := f.c.Truncate(ctx, behind); err != nil {
			return err
		}
	}
	if err := f.c.Truncate(ctx, to+footerLength); err != nil {
		return err
	}
	if err := f.c.WriteAt(ctx, f.footerRaw, to); err != nil {
		return err
	}
	if err := f.c.Barrier(ctx); err != nil {
		return err
	}
	if err := f.c.Unmap(ctx, f.endAt, footerLength); err != nil {
		return err
	}
	f.endAt, f.fileSize = to, to+footerLength
	return nil
}

// usedEnd returns the end of the last used range except the footer at the end.
func (m *image) usedEnd() (used int64) {
	for _, e := range m.structures() {
		if m.endAt < 0 || e.off != m.endAt {
			used = max(used, e.end())
		}
	}
	for i := range m.bat {
		if m.bat[i] != unused {
			used = max(used, m.bitmapAt(int64(i))+m.placeLength())
		}
	}
	return used
}

// trim moves the footer to the end of the last used range and truncates the space of
// freed blocks after it. qemu adds a block after the last one and assumes that the file
// has zeros there, so an old footer would become data.
func (f *File) trim(ctx context.Context) error {
	to := roundUp(f.usedEnd(), sectorLength)
	if f.kind == disk.Fixed || f.header.dataOffset != noOffset || f.endAt <= to {
		return nil
	}
	if f.endAt >= to+footerLength { // they do not overlap
		if err := f.c.WriteAt(ctx, f.footerRaw, to); err != nil {
			return err
		}
	}
	if err := f.c.Barrier(ctx); err != nil {
		return err
	}
	if err := f.c.Truncate(ctx, to+footerLength); err != nil {
		return err
	}
	f.places = slices.DeleteFunc(f.places, func(p place) bool { return p.off+f.placeLength() > to })
	f.endAt, f.fileSize = to, to+footerLength
	return nil
}

// planFooter sets the offset for a footer at the end, if there is no valid one: the
// last sector, unless that is in use.
func (m *image) planFooter() {
	if m.kind == disk.Fixed || m.endAt >= 0 {
		return
	}
	used := m.usedEnd()
	at := max(roundUp(used, sectorLength), (m.fileSize-footerLength)&^(sectorLength-1))
	m.endAt, m.fileSize = at, max(m.fileSize, at+footerLength)
}

// repairFooters writes the footer at the end, or its copy at 0, if it is not valid.
func (f *File) repairFooters(ctx context.Context) error {
	at := int64(0)
	switch {
	case f.kind == disk.Fixed || f.endFault == nil && f.copyFault == nil:
		return nil
	case f.endFault != nil:
		at = f.endAt
		f.fileSize = at + footerLength
		if err := f.c.Truncate(ctx, f.fileSize); err != nil {
			return err
		}
	}
	if err := f.c.WriteAt(ctx, f.footerRaw, at); err != nil {
		return err
	}
	f.endFault, f.copyFault = nil, nil
	return f.c.Barrier(ctx)
}
