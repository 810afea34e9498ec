package vhdfile

import (
	"context"
	"fmt"
	"slices"

	"odx/vhd/disk"
)

// findPlaces finds the room for blocks that nothing in the file uses: a crash
// while blocks were added leaves some, and so do blocks that were freed. It fails
// if something is used twice.
func (f *File) findPlaces() error {
	if f.kind == disk.Fixed {
		return nil
	}
	// A structure that is not known may be in what seems to be a gap.
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
		func(a, b extent) {
			if twice == nil {
				twice = invalid("%s; it can be opened for reading, to copy from it what is right", f.usedTwice(a, b))
			}
		})
	slices.Reverse(f.places)
	return twice
}

// placesIn returns up to limit places in a gap: with payload that can be mapped,
// unless there is room for none such.
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

// alignedPlace returns the first place from off on whose payload, behind the
// bitmap, can be mapped.
func (m *image) alignedPlace(off int64) int64 {
	bitmap := bitmapLength(m.blockLength)
	return roundUp(off+bitmap, pageLength) - bitmap
}

// takePlaces returns places for n blocks, with bitmaps and payload of zeros:
// free ones, and for the rest new ones before the end, to where the footer moves.
// What it does is no change of the disk. Places that are taken and not used are
// not given again before the file is opened the next time.
func (f *File) takePlaces(ctx context.Context, n int) ([]int64, error) {
	old := min(n, len(f.places))
	var grown []int64
	end := f.endAt
	for range n - old {
		at := f.alignedPlace(end)
		if at/sectorLength >= int64(unused) {
			return nil, fmt.Errorf("vhd: no place for another block: a BAT reaches the first %d bytes of a file", int64(unused)*sectorLength)
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
				return nil, fmt.Errorf("vhd: empty a place at %d: %w", p.off, err)
			}
		}
		taken = append(taken, p.off)
	}
	if len(grown) > 0 {
		if err := f.moveFooter(ctx, end); err != nil {
			return nil, fmt.Errorf("vhd: make the file larger: %w", err)
		}
	}
	return append(taken, grown...), nil
}

// moveFooter makes the file larger, so that its footer is at offset to. Until it
// is there the copy at 0 counts.
func (f *File) moveFooter(ctx context.Context, to int64) error {
	// What an attempt that failed left behind the footer must not become payload.
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

// usedEnd returns where what is used of the file ends, apart from the footer at the end.
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

// trim moves the footer to just after what is used, and cuts off the room after it,
// which blocks had that were freed. There is a program, qemu, that puts a new block
// after the last one and takes for zeros what the file has there: were it an old
// footer, that would become data.
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

// planFooter decides where the footer at the end has to be written, if there is
// no good one: in the last sector, if nothing uses that.
func (m *image) planFooter() {
	if m.kind == disk.Fixed || m.endAt >= 0 {
		return
	}
	used := m.usedEnd()
	at := max(roundUp(used, sectorLength), (m.fileSize-footerLength)&^(sectorLength-1))
	m.endAt, m.fileSize = at, max(m.fileSize, at+footerLength)
}

// repairFooters writes the footer at the end, or its copy at 0, if it is not good.
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
