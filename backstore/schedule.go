package backstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

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
// ends while it waits is urgent: a copy, which would have to say that it did nothing, does
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
		// Where checkpoints fail, waiting does not help: the caller gets the error.
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

// tooDirty reports whether there is half as much changed metadata as there can be.
func (p *pacer) tooDirty() bool { return p.parts.dirty() > p.space.dirtyLimit()/2 }
