package backstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"odx/backstore/meta"
	"odx/blockdev"
)

// pacer has changes wait where the disk or the checkpoints do not keep up, and knows when a
// checkpoint is due.
type pacer struct {
	parts       *parts
	opts        *Options
	life        *life
	space       *space
	checkpoints *checkpointer

	firstLSN atomic.Uint64 // of the records that the last checkpoint does not have
	// journalRoom is for how many bytes of records the journal had blocks after the last
	// checkpoint, at most space.journalFile.
	journalRoom atomic.Int64
}

const (
	// checkpointBytes of journal start a checkpoint: they bound the time that
	// opening the store after a crash takes.
	checkpointBytes = 128 << 20
	// checkpointRecords start one, too: small records are quick to write, and
	// take as long as others to do again.
	checkpointRecords = 200_000
	// throttleBytes of journal make writers wait for the running checkpoint.
	throttleBytes = 2 * checkpointBytes
	// checkpointPeriod is the longest time that changes stay only in the journal.
	checkpointPeriod = 30 * time.Second
	// checkpointCheck is how often the store looks whether one is due.
	checkpointCheck = 250 * time.Millisecond
	// checkpointRetry is how long it waits after one that failed.
	checkpointRetry = 2 * time.Second
)

// checkpointer lets those who change the store wait for a checkpoint when the
// checkpoints do not keep up.
type checkpointer struct {
	running sync.Mutex    // held by a checkpoint from cut to end
	storing atomic.Bool   // a checkpoint has files of the reserve, and returns others
	hurry   chan struct{} // holds a token when somebody waits
	stored  chan struct{} // holds a token when one was stored

	mu       sync.Mutex
	finished chan struct{} // closed when the next checkpoint ends; guarded by mu
	err      error         // of the last checkpoint; guarded by mu
	stopped  bool          // no checkpoint will come; guarded by mu
}

// urgentPart is the part of the changed metadata that only urgent changes may make, and
// how much more data, as a part of what makes others wait, they may leave unsynced.
const urgentPart = 16

// behind reports whether the checkpoints do not keep up: the journal is too
// long, or there is too much changed metadata, which cannot be evicted.
func (p *pacer) behind() bool {
	limit := p.space.dirtyLimit()
	return p.parts.dirty() > limit-limit/urgentPart || p.stuck()
}

// stuck reports whether not even an urgent change can be made before a checkpoint ends.
func (p *pacer) stuck() bool {
	return p.parts.journal.Bytes() > throttleBytes || p.parts.dirty() > p.space.dirtyLimit() ||
		p.space.low.Load() && p.parts.journal.Room() < p.journalRoom.Load()/lowRecordsPart && p.waitingRecords() > 0
}

// due reports whether the journal is so long, or so much metadata changed, that
// a checkpoint should be taken.
func (p *pacer) due() bool {
	return p.parts.journal.Bytes() > checkpointBytes || p.waitingRecords() > checkpointRecords || p.tooDirty() ||
		p.space.low.Load() && p.parts.journal.Room() < p.journalRoom.Load()/2 && p.waitingRecords() > 0
}

// waitingRecords returns how many records opening the store would do again.
func (p *pacer) waitingRecords() uint64 {
	return uint64(p.parts.journal.Last()) + 1 - p.firstLSN.Load()
}

// throttle waits while the disk or the checkpoints do not keep up. A change whose time
// ends meanwhile is urgent: a copy, which would have to say that it did nothing, does
// one small step.
func (p *pacer) throttle(ctx context.Context) error {
	if p.parts.segments.Unsynced() <= p.unsyncedLimit() && !p.behind() {
		return nil
	}
	patient, cancel := blockdev.BeforeLate(ctx)
	defer cancel()
	if err := p.awaitSync(ctx, patient); err != nil {
		return err
	}
	for p.behind() {
		if err := p.life.usable(); err != nil {
			return err
		}
		finished, err := p.checkpoints.next()
		if err != nil {
			return err
		}
		if !p.behind() {
			return nil
		}
		select {
		case <-patient.Done():
			if err := ctx.Err(); err != nil || !p.stuck() {
				return err
			}
			patient = ctx
		case <-finished:
		}
		// Where checkpoints fail, waiting helps nobody: the caller is told.
		if err := p.checkpoints.failure(); err != nil && p.behind() {
			return fmt.Errorf("changes cannot be stored: %w", err)
		}
	}
	return nil
}

// unsyncedLimit is how many bytes of data may be unsynced before changes wait. Each change
// that did not wait adds its data to that, and urgent ones may add a part.
func (p *pacer) unsyncedLimit() int64 { return 4 * p.opts.tuning.writeBackBytes }

// awaitSync waits for the disk while it lacks much data. From the end of patient on a
// change is urgent, and only waits where other urgent ones have used up their part.
func (p *pacer) awaitSync(ctx, patient context.Context) error {
	limit := p.unsyncedLimit()
	if p.parts.segments.Unsynced() <= limit {
		return nil
	}
	err := p.parts.journal.Commit(patient, p.parts.journal.Last())
	if err != nil && patient.Err() != nil && ctx.Err() == nil {
		if p.parts.segments.Unsynced() <= limit+limit/urgentPart {
			return nil
		}
		err = p.parts.journal.Commit(ctx, p.parts.journal.Last())
	}
	return spaceError(err)
}

// failure returns why the last checkpoint failed, nil if it did not.
func (c *checkpointer) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// next asks for a checkpoint and returns what is closed when one has ended.
func (c *checkpointer) next() (finished <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, ErrClosed
	}
	if c.finished == nil {
		c.finished = make(chan struct{})
	}
	select {
	case c.hurry <- struct{}{}:
	default:
	}
	return c.finished, nil
}

// recheck lets waiting writers look again though no checkpoint ended.
func (c *checkpointer) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished != nil {
		close(c.finished)
		c.finished = nil
	}
}

// ended lets waiting writers look again after a checkpoint that returned err.
func (c *checkpointer) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if c.finished != nil {
		close(c.finished)
		c.finished = nil
	}
}

func (c *checkpointer) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.ended(ErrClosed)
}

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

// tooDirty reports whether there is half as much changed metadata as there can be.
func (p *pacer) tooDirty() bool { return p.parts.dirty() > p.space.dirtyLimit()/2 }

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
