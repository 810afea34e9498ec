package backstore

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"odx/backstore/extent"
	"odx/backstore/segment"
)

// Cleaning moves what is still live out of segments that are mostly dead, so
// that the segments can be deleted. A move changes only the extent table: the
// old copy stays until a checkpoint has stored the new place, so a crash before
// that finds the old copy, and one after it the new one. No journal record is
// needed, and readers that are on their way to the old copy still find it.

const (
	// DefaultCleanBytesPerSecond bounds background cleaning.
	DefaultCleanBytesPerSecond = 64 << 20
	// cleanPeriod is how often the store looks whether cleaning is worth it.
	cleanPeriod = time.Second
	// Background cleaning starts when more than this part of the sealed
	// segments is dead, and takes segments of which at least the other part is.
	cleanStartPart   = 0.12
	cleanSegmentPart = 0.20
	// cleanBatch is how many bytes are moved in one step.
	cleanBatch = 1 << 20
)

// segmentSpace is how a segment's blocks are used.
type segmentSpace struct {
	id         segment.ID
	live, dead int64
}

func (sp segmentSpace) deadPart() float64 {
	return float64(sp.dead) / float64(max(sp.live+sp.dead, 1))
}

// sealedSegments returns the segments that nothing is appended to any more,
// those with the largest dead part first, and the sums over them.
func (s *Store) sealedSegments() (sealed []segmentSpace, live, dead int64) {
	limit := s.appends.min(s.appendFloor())
	for _, id := range s.segments.List() {
		if id >= limit {
			continue
		}
		sp := segmentSpace{id: id, live: s.usage.Live(id)}
		sp.dead = max(s.segments.Bytes(id)/BlockLength-1-sp.live, 0)
		live += sp.live
		dead += sp.dead
		sealed = append(sealed, sp)
	}
	slices.SortFunc(sealed, func(a, b segmentSpace) int {
		return cmp.Compare(b.deadPart(), a.deadPart())
	})
	return sealed, live, dead
}

// cleanLoop cleans in the background within the budget until ctx ends.
func (s *Store) cleanLoop(ctx context.Context) {
	tick := time.NewTicker(cleanPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for {
			sealed, live, dead := s.sealedSegments()
			// Segments without live data wait for a checkpoint, not for cleaning.
			sealed = slices.DeleteFunc(sealed, func(sp segmentSpace) bool { return sp.live == 0 })
			all := segmentSpace{live: live, dead: dead}
			if len(sealed) == 0 || all.deadPart() < cleanStartPart || sealed[0].deadPart() < cleanSegmentPart || s.usable() != nil {
				break
			}
			s.cleaning.Lock()
			err := s.cleanSegment(ctx, sealed[0].id, s.cleanBudget)
			s.cleaning.Unlock()
			if err != nil {
				if ctx.Err() == nil {
					s.log.WithError(err).Warn("cleaning stopped; it is tried again")
				}
				break
			}
		}
	}
}

// Clean moves live data out of every segment that has dead data, as fast as
// the disk allows, and deletes the segments. Data of volumes and snapshots that
// were deleted before is dead. Operations go on meanwhile.
func (s *Store) Clean(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.reapAll(ctx); err != nil {
		return err
	}
	s.cleaning.Lock()
	defer s.cleaning.Unlock()
	s.segments.Seal()
	unlimited := rate.NewLimiter(rate.Inf, 0)
	sealed, _, _ := s.sealedSegments()
	for _, sp := range sealed {
		if sp.dead == 0 || sp.live == 0 {
			continue
		}
		if err := s.cleanSegment(ctx, sp.id, unlimited); err != nil {
			return err
		}
	}
	return s.Checkpoint(ctx)
}

// reapAll frees the map nodes that were given up.
func (s *Store) reapAll(ctx context.Context) error {
	for {
		for more := true; more; {
			var err error
			if more, err = s.reapOnce(ctx); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		// None is waiting. With no operation in progress none is on its way to
		// that either, in the hands of the background.
		s.opMu.Lock()
		more, err := s.forest.Reap(0)
		s.opMu.Unlock()
		if err != nil || !more {
			return err
		}
	}
}

// moving is an extent on its way to another segment.
type moving struct {
	id extent.ID
	x  extent.Extent
}

func (s *Store) cleanSegment(ctx context.Context, id segment.ID, limiter *rate.Limiter) error {
	var batch []moving
	bytes := 0
	for _, page := range s.usage.Pages(id) {
		var found []moving
		if err := s.extents.InSegment(page, id, func(id extent.ID, x *extent.Extent) {
			found = append(found, moving{id, *x})
		}); err != nil {
			return err
		}
		for _, m := range found {
			batch = append(batch, m)
			bytes += int(m.x.Blocks) * BlockLength
			if bytes < cleanBatch {
				continue
			}
			if err := s.moveBatch(ctx, batch, bytes, limiter); err != nil {
				return err
			}
			batch, bytes = batch[:0], 0
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return s.moveBatch(ctx, batch, bytes, limiter)
}

// moveBatch copies extents, in the order of their places, and changes the
// table. Extents that went away meanwhile are left.
func (s *Store) moveBatch(ctx context.Context, batch []moving, bytes int, limiter *rate.Limiter) error {
	if err := waitBudget(ctx, limiter, bytes); err != nil {
		return err
	}
	slices.SortFunc(batch, func(a, b moving) int { return int(a.x.Addr.Block) - int(b.x.Addr.Block) })
	buf := make([]byte, 0, bytes)
	for i := range batch {
		x := &batch[i].x
		at := len(buf)
		buf = buf[:at+int(x.Blocks)*BlockLength]
		if err := s.segments.ReadAt(x.Addr, buf[at:]); err != nil {
			return fmt.Errorf("extent %d: %w", batch[i].id, err)
		}
		for k := range int(x.Blocks) {
			// A damaged extent is left where it is: moving it would give it a
			// right checksum no more than it has now.
			if crc32.Checksum(buf[at+k*BlockLength:at+(k+1)*BlockLength], castagnoli) != x.CRC[k] {
				return fmt.Errorf("extent %d in segment %08x: %w: %w", batch[i].id, x.Addr.Segment, ErrCorrupt, errCRC)
			}
		}
	}
	floor := s.appendFloor()
	s.appends.begin(floor)
	defer s.appends.end(floor)
	to, err := s.segments.Append(buf)
	if err != nil {
		return spaceError(err)
	}
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	for i := range batch {
		x := &batch[i].x
		if _, err := s.extents.Move(batch[i].id, x.Addr, to); err != nil {
			return s.fail(err)
		}
		to.Block += uint32(x.Blocks)
	}
	return nil
}

// waitBudget waits until the limiter allows so many bytes.
func waitBudget(ctx context.Context, limiter *rate.Limiter, bytes int) error {
	for bytes > 0 {
		n := bytes
		if limiter.Limit() != rate.Inf {
			n = min(bytes, limiter.Burst())
		}
		if err := limiter.WaitN(ctx, n); err != nil {
			return err
		}
		bytes -= n
	}
	return nil
}
