package backstore

import (
	"context"
	"errors"
	"fmt"
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

// maxCleanWait bounds how long cleaning that failed waits for the next attempt.
const maxCleanWait = time.Minute

// attempts paces cleaning that fails: each attempt can take a checkpoint.
type attempts struct {
	wait   time.Duration // between the last one and the next; 0: it did not fail
	failed time.Time
	room   int64 // space.cleanable after the last one
}

// due reports whether to try: an attempt that failed is repeated after twice the time
// of the last wait, and earlier when there is more room than it had.
func (a *attempts) due(room int64, now time.Time) bool {
	since := now.Sub(a.failed)
	return since >= a.wait || since >= cleanPeriod && room-a.room >= lowSpace
}

// fail notes a failure, and reports whether it is the first one of an episode.
func (a *attempts) fail(room int64, now time.Time) (first bool) {
	first = a.wait == 0
	a.wait, a.failed, a.room = min(max(2*a.wait, cleanPeriod), maxCleanWait), now, room
	return first
}

// cleanLoop is the state of a cleaner's loop.
type cleanLoop struct {
	c       *cleaner
	damaged map[segment.ID]bool // they cannot become empty
	last    looks
	scarce  attempts // to clean on a full disk
	usual   attempts
	home    attempts                 // to bring home what lies in other stores
	later   map[segment.ID]time.Time // when to try it again for an alias that could not be read
	tick    time.Time                // when the loop began to look what there is to do
}

// loop cleans in the background within the budget until ctx ends.
func (c *cleaner) loop(ctx context.Context) {
	tick := time.NewTicker(cleanPeriod)
	defer tick.Stop()
	l := cleanLoop{c: c, damaged: make(map[segment.ID]bool), later: make(map[segment.ID]time.Time)}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.space.cleanNow:
		}
		l.tick = time.Now()
		l.attempt(ctx, &l.home, "bringing adopted data home stopped; it is tried again, after a minute at the latest", l.bringHome)
		l.attempt(ctx, &l.scarce, "cleaning on a full disk stopped; it is tried again, after a minute at the latest", l.cleanScarce)
		l.attempt(ctx, &l.usual, "cleaning stopped; it is tried again, after a minute at the latest", l.cleanUsual)
	}
}

// attempt calls clean until nothing more is to be done, or, after it has failed, waits
// for the next attempt. An episode of failures is logged once.
func (l *cleanLoop) attempt(ctx context.Context, a *attempts, failed string, clean func(context.Context) (more bool, err error)) {
	if a.wait > 0 && !a.due(l.c.space.cleanable(), time.Now()) {
		return
	}
	for ctx.Err() == nil {
		more, err := clean(ctx)
		if err != nil && ctx.Err() == nil {
			l.c.failures.Add(1)
		}
		if err != nil && ctx.Err() == nil && a.fail(l.c.space.cleanable(), time.Now()) {
			l.c.log.WithError(err).Warn(failed)
		}
		if err != nil {
			return
		}
		if a.wait = 0; !more {
			return
		}
	}
}

// cleanScarce takes a step of cleaning on a store that lacks room.
func (l *cleanLoop) cleanScarce(ctx context.Context) (more bool, err error) {
	if l.c.life.usable() != nil || !l.c.space.scarce() {
		return false, nil
	}
	return l.c.cleanScarce(ctx, l.damaged)
}

// bringHome moves what is live in an alias to segments of this store, so that the other store can
// have its own back. There is more to do for as long as other cleaning is not due.
func (l *cleanLoop) bringHome(ctx context.Context) (more bool, err error) {
	c := l.c
	id := c.aliases.next(time.Now(), l.later)
	if id == 0 || c.space.scarce() || c.life.usable() != nil {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err = corrupt(c.cleanSegment(ctx, id, c.budget))
	if err == nil && c.parts.usage.Live(id) > 0 && c.aliases.rests(id, time.Now()) {
		err = fmt.Errorf("%w: its file is missing", ErrCorrupt)
	}
	if errors.Is(err, ErrCorrupt) { // or the pool does not answer at present
		c.log.WithError(err).WithField("segment", fmt.Sprintf("%08x", uint32(id))).Warn("some of what was adopted cannot be read, and stays where it is; it is tried again")
		l.later[id], err = time.Now().Add(10*maxCleanWait), nil
	}
	return err == nil && time.Since(l.tick) < cleanPeriod, err
}

// cleanUsual cleans the segment with the most dead data, where that is worth it.
func (l *cleanLoop) cleanUsual(ctx context.Context) (more bool, err error) {
	c := l.c
	all, live, dead := c.sealedSegments()
	// Segments without live data wait for a checkpoint, not for cleaning.
	sealed := slices.DeleteFunc(slices.Clone(all), func(sp segmentSpace) bool {
		return sp.live == 0 || l.damaged[sp.id] || l.last.dying(sp)
	})
	l.last.look(all, time.Now())
	sum := segmentSpace{live: live, dead: dead}
	// On a store that takes too much each segment needs a checkpoint, see cleanScarce.
	if c.space.scarce() || len(sealed) == 0 || sum.deadPart() < cleanStartPart || sealed[0].deadPart() < cleanSegmentPart || c.life.usable() != nil {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err = corrupt(c.cleanSegment(ctx, sealed[0].id, c.budget))
	if errors.Is(err, ErrCorrupt) {
		c.log.WithError(err).Warn("a segment keeps its space, because not all of it can be read")
		l.damaged[sealed[0].id], err = true, nil
	}
	return err == nil, err
}
