package backstore

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"odx/backstore/segment"
)

// Clean moves live data out of every segment that has dead data, as fast as
// the disk allows, and deletes the segments. Data of volumes and snapshots that
// were deleted before is dead. Operations continue. Data that cannot be
// read stays where it is, and is an ErrCorrupt in the end.
func (s *Store) Clean(ctx context.Context) error {
	if err := s.life.writable(); err != nil {
		return err
	}
	if err := s.reapAll(ctx); err != nil {
		return err
	}
	s.cleaner.mu.Lock()
	defer s.cleaner.mu.Unlock()
	s.space.measure() // another program may have filled the disk just now
	s.cleaner.seal()
	// What is moved is to end in files that are no longer than it. A store that is
	// full itself keeps what it frees.
	if !s.space.low.Load() {
		s.parts.segments.KeepSpares(false)
		defer s.parts.segments.KeepSpares(true)
		s.space.dropSpares(time.Now())
	}
	unlimited := rate.NewLimiter(rate.Inf, 0)
	sealed, _, _ := s.cleaner.sealedSegments()
	var damage error
	for _, sp := range sealed {
		if sp.dead == 0 || sp.live == 0 {
			continue
		}
		err := s.cleanWhole(ctx, sp.id, unlimited)
		if err = corrupt(err); errors.Is(err, ErrCorrupt) {
			damage = errors.Join(damage, err)
		} else if err != nil {
			return err
		}
	}
	s.cleaner.seal() // what is left of the last one is of use to others
	return errors.Join(s.Checkpoint(ctx), damage)
}

// seal ends appending to the current segment, unless cleaning needs the rest of it.
func (c *cleaner) seal() {
	if id, ok := c.parts.segments.Current(); ok {
		c.parts.segments.SealToClean(c.parts.usage.Live(id))
	}
}

// cleanWhole cleans a segment. On a full disk the files of those before it become the
// store's by a checkpoint, and the rest of it has room in these; it gives up when
// checkpoints make no room.
func (s *Store) cleanWhole(ctx context.Context, id segment.ID, limiter *rate.Limiter) error {
	left, waited := int64(-1), 0
	for {
		err := s.cleaner.cleanSegment(ctx, id, limiter)
		if !errors.Is(err, ErrNoSpace) {
			return err
		}
		live := s.parts.usage.Live(id)
		if live == left {
			if waited++; waited > maxReaderWaits || !s.cleaner.awaitReaders(ctx) {
				return err
			}
		}
		left = live
		if err := s.Checkpoint(ctx); err != nil {
			return err
		}
	}
}

const (
	// maxReaderWaits is how often cleaning on request waits for readers that come back.
	maxReaderWaits = 10
	readerWait     = 5 * time.Second
	readerPoll     = 10 * time.Millisecond
)

// awaitReaders waits until nothing reads the segments without live data: a checkpoint
// leaves one that is read. It reports whether there are any that are not read now.
func (c *cleaner) awaitReaders(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readerWait)
	defer cancel()
	poll := time.NewTicker(readerPoll)
	defer poll.Stop()
	for {
		sealed, _, _ := c.sealedSegments()
		empty := 0
		for _, sp := range sealed {
			if sp.live > 0 {
				continue
			}
			if empty++; !c.parts.segments.Reading(sp.id) {
				return true
			}
		}
		if empty == 0 {
			return false
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return false
		}
	}
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
		more, err := s.parts.forest.Reap(0)
		s.opMu.Unlock()
		if err != nil || !more {
			return err
		}
	}
}

// reapStep is how many dropped nodes are freed without giving way to a
// checkpoint's cut.
const reapStep = 64

// reapRetry is how long reaping waits after an error, such as a checkpoint that a
// full disk refused.
const reapRetry = time.Second

// reapLoop frees dropped map nodes in the background. An error delays it: on a
// full disk the nodes are what has to be freed before there is space again.
func (s *Store) reapLoop(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.parts.forest.Wake():
		case <-retry.C:
		}
		for more := true; more; {
			var err error
			if more, err = s.reapOnce(ctx); err != nil {
				retry.Reset(reapRetry)
				break
			}
		}
	}
}

// reapOnce takes one step. When it says that there is no more, what was dropped
// before has been freed, by this call or another.
func (s *Store) reapOnce(ctx context.Context) (more bool, err error) {
	if err := s.pace.throttle(ctx); err != nil {
		return false, err
	}
	s.reaping.Lock()
	defer s.reaping.Unlock()
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if err := s.life.usable(); err != nil {
		return false, err
	}
	more, err = s.parts.forest.Reap(reapStep)
	if err != nil && more && metadataDamage(err) {
		s.damage.Note("map nodes that were given up, whose space is not freed", err)
		return true, nil
	}
	if err != nil {
		err = s.life.fail(err)
	}
	return more, err
}
