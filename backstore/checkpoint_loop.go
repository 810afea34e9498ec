package backstore

import (
	"context"
	"errors"
	"time"

	"odx/backstore/meta"
)

// checkpointLoop runs checkpoints until ctx ends.
func (s *Store) checkpointLoop(ctx context.Context) {
	tick := time.NewTicker(checkpointCheck)
	defer tick.Stop()
	last, lastLSN := time.Now(), s.parts.journal.Last()
	hurry := s.checkpoints.hurry
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			hurry = s.checkpoints.hurry
		case <-hurry:
		}
		s.space.measure()
		if !s.pace.behind() {
			s.checkpoints.recheck()
		}
		// On a full disk a checkpoint takes space that only cleaning gives back.
		idle := time.Since(last) < checkpointPeriod || s.space.low.Load() || s.parts.journal.Last() == lastLSN && s.parts.dirty() == 0
		if idle && !s.pace.due() {
			continue
		}
		lsn := s.parts.journal.Last()
		start := time.Now()
		err := s.Checkpoint(ctx)
		last = time.Now()
		tick.Reset(checkpointCheck)
		if err != nil {
			// Those who wait do not make the disk whole.
			hurry = nil
			tick.Reset(checkpointRetry)
			if ctx.Err() == nil {
				s.log.WithError(err).Warn("checkpoint failed; it is tried again, and the journal keeps everything until then")
			}
			continue
		}
		lastLSN = lsn
		s.log.WithField("took", time.Since(start)).Debug("checkpoint")
	}
}

// tidyLoop puts the files of metadata in order, at first and after each
// checkpoint, until ctx ends.
func (s *Store) tidyLoop(ctx context.Context) {
	for {
		if err := s.parts.kv.Tidy(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, meta.ErrDamaged) {
			s.log.WithError(err).Warn("merging metadata failed; it is tried again after the next checkpoint")
		}
		select {
		case <-ctx.Done():
			return
		case <-s.checkpoints.stored:
		}
	}
}
