package vhdxfile

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"odx/vhd/disk"
)

// entriesPerSector is the number of BAT entries in an update.
const entriesPerSector = sectorLength / 8

// change is a new value of a BAT entry.
type change struct {
	index int64
	value uint64
}

// update changes entries of the BAT, in one step unless there are too many. After an
// error it returns the changes that were not made.
func (f *File) update(ctx context.Context, changes []change) ([]change, error) {
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.index, b.index) })
	for len(changes) > 0 {
		var pieces []piece
		n := 0
		for ; n < len(changes); n++ {
			number := changes[n].index / entriesPerSector
			at := f.regions.bat.offset + number*sectorLength
			if len(pieces) == 0 || pieces[len(pieces)-1].offset != at {
				if len(pieces) == maxSectors {
					break
				}
				data, err := f.bat.sector(ctx, number)
				if err != nil {
					return changes, err
				}
				pieces = append(pieces, piece{at, sectorLength, data})
			}
			le.PutUint64(pieces[len(pieces)-1].data[changes[n].index%entriesPerSector*8:], changes[n].value)
		}
		if err := f.commit(ctx, pieces); err != nil {
			return changes, err
		}
		for _, c := range changes[:n] {
			f.bat.set(c.index, c.value)
		}
		changes = changes[n:]
	}
	return nil, nil
}

// distinct returns the blocks without duplicates.
func (f *File) distinct(blocks []int64) ([]int64, error) {
	seen := make(map[int64]bool, len(blocks))
	kept := make([]int64, 0, len(blocks))
	for _, i := range blocks {
		if i < 0 || i >= f.table.blocks {
			return nil, fmt.Errorf("block %d is out of range; the disk has %d blocks", i, f.table.blocks)
		}
		if !seen[i] {
			seen[i] = true
			kept = append(kept, i)
		}
	}
	return kept, nil
}

// Allocate implements disk.Table.
func (f *File) Allocate(ctx context.Context, blocks []int64) error {
	return f.allocate(ctx, blocks, false)
}

// Complete implements disk.Table.
func (f *File) Complete(ctx context.Context, blocks []int64) error {
	return f.allocate(ctx, blocks, true)
}

func (f *File) allocate(ctx context.Context, blocks []int64, complete bool) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	blocks, err := f.distinct(blocks)
	if err != nil {
		return err
	}
	var changes []change
	var fresh, partial []int64
	for _, i := range blocks {
		b, err := f.Block(ctx, i)
		if err != nil {
			return err
		}
		switch {
		case b.State == disk.Full:
		case b.State == disk.Partial && complete:
			changes = append(changes, change{f.table.payload(i), entry(fullyPresent, b.Offset)})
		case b.State == disk.Partial:
		default:
			fresh = append(fresh, i)
			if b.State == disk.Absent && f.meta.kind == disk.Differencing && !complete {
				partial = append(partial, i)
			}
		}
	}
	if len(changes) > 0 {
		// The payload must be durable before the log marks the blocks complete.
		if err := f.barrier(ctx); err != nil {
			return err
		}
	}
	p := placing{f: f}
	bitmaps, had, err := p.bitmaps(ctx, partial)
	if err != nil {
		return err
	}
	changes = append(changes, p.payload(fresh, partial)...)
	return p.commit(ctx, bitmaps, had, changes)
}

// Free implements disk.Table.
func (f *File) Free(ctx context.Context, blocks []int64) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	blocks, err := f.distinct(blocks)
	if err != nil {
		return err
	}
	var changes []change
	places := make(map[int64]region)
	for _, i := range blocks {
		index := f.table.payload(i)
		b, err := f.Block(ctx, i)
		if err != nil {
			return err
		}
		switch {
		case b.State == disk.Full || b.State == disk.Partial:
			places[index] = region{b.Offset, f.meta.BlockLength}
		case b.State == disk.Zero, f.meta.kind != disk.Differencing:
			continue
		}
		if f.meta.kind != disk.Fixed {
			changes = append(changes, change{index, entry(zero, 0)})
		}
	}
	failed, err := f.update(ctx, changes)
	for _, c := range failed {
		delete(places, c.index)
	}
	var freed []region
	for _, at := range places {
		freed = append(freed, at)
		if f.meta.kind != disk.Fixed {
			f.space.release(at.offset, at.length)
		}
	}
	// Only now, after the log no longer refers to them.
	if unmapErr := f.unmap(ctx, freed); err == nil {
		err = unmapErr
	}
	return err
}

// unmap zeros ranges, as far as they are within the file.
func (f *File) unmap(ctx context.Context, parts []region) error {
	slices.SortFunc(parts, func(a, b region) int { return cmp.Compare(a.offset, b.offset) })
	for n := 0; n < len(parts); {
		at := parts[n]
		for n++; n < len(parts) && parts[n].offset == at.offset+at.length; n++ {
			at.length += parts[n].length
		}
		at.length = min(at.length, f.view.size-at.offset)
		if at.length <= 0 {
			continue
		}
		if err := f.c.Unmap(ctx, at.offset, at.length); err != nil {
			return fmt.Errorf("unmap %d bytes at %d: %w", at.length, at.offset, err)
		}
	}
	return nil
}
