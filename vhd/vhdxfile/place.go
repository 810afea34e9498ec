package vhdxfile

import (
	"context"
	"fmt"
	"slices"
)

// mapSpan is what the offset of a block should be a multiple of: the store shares a
// whole node of its map between two places whose distance is one.
const mapSpan = 2 * mib

// placing is the search for places of blocks, and how they come to be used.
type placing struct {
	f     *File
	found []region
}

// find takes a place in the file, or behind it.
func (p *placing) find(length, align int64) int64 {
	at := p.f.space.find(length, align)
	p.found = append(p.found, region{at, length})
	return at
}

// bitmaps gives the sector bitmap blocks of partially present blocks places, where
// they have none. It returns the blocks of the others, too.
func (p *placing) bitmaps(ctx context.Context, partial []int64) (changes []change, had []int64, err error) {
	placed := make(map[int64]bool)
	for _, i := range partial {
		index := p.f.table.bitmap(i)
		e, err := p.f.bat.get(ctx, index)
		switch {
		case err != nil:
			p.giveBack(changes)
			return nil, nil, err
		case placed[index]:
		case stateOf(e) == fullyPresent:
			had = append(had, i)
		default:
			placed[index] = true
			changes = append(changes, change{index, entry(fullyPresent, p.find(bitmapLength, bitmapLength))})
		}
	}
	return changes, had, nil
}

// payload gives blocks places one behind the other; those that are in partial, which
// has the same order, become partially present, the others fully.
func (p *placing) payload(blocks, partial []int64) []change {
	if len(blocks) == 0 {
		return nil
	}
	length := p.f.meta.BlockLength
	at := p.find(length*int64(len(blocks)), min(length, mapSpan))
	changes := make([]change, len(blocks))
	for n, i := range blocks {
		s := fullyPresent
		if len(partial) > 0 && partial[0] == i {
			s, partial = partiallyPresent, partial[1:]
		}
		changes[n] = change{p.f.table.payload(i), entry(s, at+int64(n)*length)}
	}
	return changes
}

// make makes what was found zeros, and then the changes. Sector bitmaps come before
// the blocks that need them, and have no bit for them: those that blocks had already
// may have some.
func (p *placing) make(ctx context.Context, bitmaps []change, had []int64, changes []change) error {
	err := p.prepare(ctx)
	if err == nil {
		bitmaps, err = p.f.update(ctx, bitmaps)
	}
	if err == nil {
		err = p.f.clearBits(ctx, had)
	}
	if err == nil {
		changes, err = p.f.update(ctx, changes)
	}
	if err != nil {
		p.giveBack(append(bitmaps, changes...))
	}
	return err
}

// giveBack gives the places back of entries that were not changed to them.
func (p *placing) giveBack(failed []change) {
	for _, c := range failed {
		at := region{int64(offsetOf(c.value)), bitmapLength}
		if _, r := p.f.table.at(c.index); r == ofPayload {
			at.length = p.f.meta.BlockLength
		}
		if slices.ContainsFunc(p.found, func(r region) bool { return at.offset >= r.offset && at.offset < r.offset+r.length }) {
			p.f.space.give(at.offset, at.length)
		}
	}
}

// prepare makes what was found zeros, and the file long enough. Places may have been
// freed, or been there when the file was opened: a crash must not leave an entry
// without the zeros.
func (p *placing) prepare(ctx context.Context) error {
	f := p.f
	reused, size := false, f.view.size
	for _, r := range p.found {
		reused = reused || r.offset < f.view.size
		size = max(size, r.offset+r.length)
	}
	if size > maxFile {
		return fmt.Errorf("the file would need %d bytes; up to %d TiB are possible", size, maxFile>>40)
	}
	if reused {
		if err := f.unmap(ctx, slices.Clone(p.found)); err != nil {
			return err
		}
		if err := f.barrier(ctx); err != nil {
			return err
		}
	}
	if size > f.view.size {
		if err := f.c.Truncate(ctx, size); err != nil {
			return fmt.Errorf("make the file %d bytes long: %w", size, err)
		}
		f.view.size = size
	}
	return nil
}
