package backstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/time/rate"

	"odx/backstore/extent"
	"odx/backstore/segment"
)

// Cleaning on a full disk moves what is live in a segment into the reserve, and a
// checkpoint makes the segment's file the store's again: the next reserve, or room
// for new data. So it continues without a free block. It begins as soon as there is as
// much dead data as lets writes continue, wherever that is: with less it would move data
// for nothing.
//
// When cleaning ends in the middle of a segment, because the process does, or the reserve
// has no room for the rest of it, what was moved has taken blocks of the reserve, and the
// segment has as many more that are dead and whose file is not the store's again. So the next segment to
// be cleaned, the one with the largest dead part, has room in what is left: cleaning goes on
// there (resume), and not in a file that there may not be.

// errStays: a checkpoint does not remove a segment without live data.
var errStays = errors.New("it holds nothing that is needed, and is being read or cannot be removed")

// cleanScarce frees segments that have dead data, those with the most first, and
// those without live data, and reports whether to continue. damaged are left out, and
// get those of which not all could be read.
func (c *cleaner) cleanScarce(ctx context.Context, damaged map[segment.ID]bool) (more bool, err error) {
	sealed, _, _ := c.sealedSegments()
	empty := func(sp segmentSpace) bool { return sp.live == 0 }
	if i := slices.IndexFunc(sealed, empty); i >= 0 {
		if err := c.checkpoint(ctx); err != nil {
			return false, err
		}
		if slices.Contains(c.parts.segments.List(), sealed[i].id) {
			return false, fmt.Errorf("segment %08x: %w", uint32(sealed[i].id), errStays)
		}
		return true, nil
	}
	sealed = slices.DeleteFunc(sealed, func(sp segmentSpace) bool { return sp.dead == 0 || damaged[sp.id] })
	dead := int64(0)
	for _, sp := range sealed {
		dead += sp.dead
	}
	current, blocks, ok := c.parts.segments.CurrentBlocks()
	inCurrent := blocks - c.parts.usage.Live(current)
	if want := c.space.lackingBytes(); (dead+inCurrent)*BlockLength < want {
		return false, nil
	} else if len(sealed) == 0 || dead*BlockLength < want {
		// The next time it is one of those above.
		return ok && inCurrent > 0 && c.parts.segments.SealToClean(c.parts.usage.Live(current)), nil
	}
	for i, sp := range sealed {
		if i > 0 && c.parts.segments.MovedBytes() < sp.live*BlockLength {
			break // it needs the file of one that was moved
		}
		if err := c.cleanFull(ctx, sp.id, damaged); err != nil {
			// What was moved becomes room all the same.
			return false, errors.Join(err, c.checkpoint(ctx))
		}
	}
	return true, c.checkpoint(ctx)
}

// resume goes on moving to the segment that an earlier process moved to, where files of the
// reserve are missing. No operation is in progress yet.
func (c *cleaner) resume() {
	id, ok := c.parts.segments.Rest()
	if !ok {
		return
	}
	log := c.log.WithField("segment", fmt.Sprintf("%08x", uint32(id)))
	bytes, err := c.resumeIn(id)
	switch {
	case err != nil:
		log.WithError(err).Warn("what is left of the newest segment is not used")
	case bytes > 0:
		log.WithField("bytes", bytes).Info("cleaning on a full disk goes on in the segment that it moved to before")
	}
}

// resumeIn makes what follows the last live block of a segment room for cleaning, and
// returns how much that is.
func (c *cleaner) resumeIn(id segment.ID) (bytes int64, err error) {
	end, blocks := uint32(1), int64(0)
	for _, page := range c.parts.usage.Pages(id) {
		if err := c.parts.extents.InSegment(page, id, func(_ extent.ID, x *extent.Extent) {
			end = max(end, x.Addr.Block+uint32(x.Blocks))
			blocks += int64(x.Blocks)
		}); err != nil {
			return 0, err
		}
	}
	if live := c.parts.usage.Live(id); live != blocks {
		return 0, fmt.Errorf("%w: segment %08x has %d blocks that are needed, and %d are known", ErrCorrupt, uint32(id), live, blocks)
	}
	return c.parts.segments.Resume(id, end)
}

// cleanFull cleans a segment as fast as the disk allows.
func (c *cleaner) cleanFull(ctx context.Context, id segment.ID, damaged map[segment.ID]bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.cleanSegment(ctx, id, rate.NewLimiter(rate.Inf, 0))
	if errors.Is(err, ErrCorrupt) {
		c.log.WithError(err).Warn("a segment keeps its space, because not all of it can be read")
		err = nil
	}
	damaged[id] = err == nil && c.parts.usage.Live(id) > 0
	return err
}
