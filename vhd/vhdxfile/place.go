package vhdxfile

import (
	"context"
	"fmt"
	"slices"
)

// mapSpan is the preferred alignment of blocks in bytes: the store shares a whole map
// node between two places whose distance is a multiple of it.
const mapSpan = 2 * mib

// placing is an allocation of places for blocks.
type placing struct {
	f     *File
	found []region
}

// find takes a place in the file or at its end.
func (p *placing) find(length, align int64) int64 {
	at := p.f.space.find(length, align)
	p.found = append(p.found, region{at, length})
	return at
}

// bitmaps allocates the missing sector bitmap blocks of partially present blocks. It
// also returns the blocks that have one.
func (p *placing) bitmaps(ctx context.Context, partial []int64) (changes []change, had []int64, err error) {
	placed := make(map[int64]bool)
	for _, i := range partial {
		index := p.f.table.bitmap(i)
		e, err := p.f.bat.get(ctx, index)
		switch {
		case err != nil:
			p.release(changes)
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

// payload allocates contiguous places for blocks. Those in partial, which has the same
// order, become partially present, the others fully present.
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

// commit zeros the places and makes the changes. Sector bitmaps precede the blocks that
// use them, and have no bit set for them; existing bitmaps may have some.
func (p *placing) commit(ctx context.Context, bitmaps []change, had []int64, changes []change) error {
	err := p.zero(ctx)
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
		p.release(append(bitmaps, changes...))
	}
	return err
}

// release frees the places of changes that were not made.
func (p *placing) release(failed []change) {
	for _, c := range failed {
		at := region{int64(offsetOf(c.value)), bitmapLength}
		if _, r := p.f.table.at(c.index); r == ofPayload {
			at.length = p.f.meta.BlockLength
		}
		if slices.ContainsFunc(p.found, func(r region) bool { return at.offset >= r.offset && at.offset < r.offset+r.length }) {
			p.f.space.release(at.offset, at.length)
		}
	}
}

// zero zeros the places and extends the file. A place may have old contents, which a
// crash must not leave in an entry.
func (p *placing) zero(ctx context.Context) error {
	f := p.f
	reused, size := false, f.view.size
	for _, r := range p.found {
		reused = reused || r.offset < f.view.size
		size = max(size, r.offset+r.length)
	}
	if size > maxFile {
		return fmt.Errorf("file would need %d bytes; maximum is %d TiB", size, maxFile>>40)
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
			return fmt.Errorf("truncate the file to %d bytes: %w", size, err)
		}
		f.view.size = size
	}
	return nil
}
