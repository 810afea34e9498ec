package backstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"odx/backstore/segment"
)

// looks remembers how much was alive in the segments a while ago.
type looks struct {
	live map[segment.ID]int64
	at   time.Time
}

// dying reports whether much of the segment has died since the last look, or
// since it was filled, if that was later.
func (l *looks) dying(sp segmentSpace) bool {
	size := sp.live + sp.dead
	before, seen := l.live[sp.id]
	if !seen {
		before = size
	}
	return before-sp.live > size/cleanDyingPart
}

// look takes a new look, if the last one is long ago.
func (l *looks) look(sealed []segmentSpace, now time.Time) {
	if now.Sub(l.at) < cleanPeriod {
		return
	}
	l.at, l.live = now, make(map[segment.ID]int64, len(sealed))
	for _, sp := range sealed {
		l.live[sp.id] = sp.live
	}
}

// loop cleans in the background within the budget until ctx ends.
func (c *cleaner) loop(ctx context.Context) {
	tick := time.NewTicker(cleanPeriod)
	defer tick.Stop()
	damaged := make(map[segment.ID]bool) // they cannot become empty
	var last looks
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.space.cleanNow:
		}
		for c.life.usable() == nil && c.space.scarce() && ctx.Err() == nil {
			more, err := c.cleanScarce(ctx, damaged)
			if err != nil && ctx.Err() == nil {
				c.log.WithError(err).Warn("cleaning on a full disk stopped; it is tried again")
			}
			if !more || err != nil {
				break
			}
		}
		for {
			all, live, dead := c.sealedSegments()
			// Segments without live data wait for a checkpoint, not for cleaning.
			sealed := slices.DeleteFunc(slices.Clone(all), func(sp segmentSpace) bool {
				return sp.live == 0 || damaged[sp.id] || last.dying(sp)
			})
			last.look(all, time.Now())
			sum := segmentSpace{live: live, dead: dead}
			// On a store that takes too much each segment needs a checkpoint, see above.
			if c.space.scarce() || len(sealed) == 0 || sum.deadPart() < cleanStartPart || sealed[0].deadPart() < cleanSegmentPart || c.life.usable() != nil {
				break
			}
			c.mu.Lock()
			err := c.cleanSegment(ctx, sealed[0].id, c.budget)
			c.mu.Unlock()
			if err = corrupt(err); errors.Is(err, ErrCorrupt) {
				c.log.WithError(err).Warn("a segment keeps its space, because not all of it can be read")
				damaged[sealed[0].id] = true
				continue
			}
			if err != nil {
				if ctx.Err() == nil {
					c.log.WithError(err).Warn("cleaning stopped; it is tried again")
				}
				break
			}
		}
	}
}
