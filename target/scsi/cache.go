package scsi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// synchronizeIMMED requests status before the flush has completed.
const synchronizeIMMED = 0x02 // byte 1

// finishWrite makes written data durable if the FUA bit or the caching mode page
// requires it.
func (lu *LogicalUnit) finishWrite(ctx context.Context, cdb []byte) error {
	if forcesUnitAccess(cdb) || lu.WriteThrough() {
		return lu.Volume().Flush(ctx)
	}
	return nil
}

// prepareSynchronizeCache checks SYNCHRONIZE CACHE(10) and (16): SBC-3 5.26,
// 5.27. No block count means all blocks to the last.
func prepareSynchronizeCache(t *Task) error {
	r := rangeOf(t.CDB())
	if r.blocks == 0 && r.lba >= t.LU.Blocks() {
		return sense.New(sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
	return t.LU.checkRange(r.lba, r.blocks)
}

// executeSynchronizeCache flushes the whole volume: one group commit serves every
// range. With IMMED, status precedes the flush (SBC-3 5.26); the flush continues in the
// background, and a failure becomes a deferred error.
func executeSynchronizeCache(ctx context.Context, t *Task) error {
	if t.CDB()[1]&synchronizeIMMED != 0 {
		return t.LU.background.request(t.itl)
	}
	return t.LU.Volume().Flush(ctx)
}

// backgroundFlush runs the flushes of SYNCHRONIZE CACHE with IMMED. Any number of
// requests costs one goroutine, and one flush after the running one. A failure becomes
// a deferred error of every requesting nexus.
type backgroundFlush struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex // guards the fields below; held alone
	closed bool
	// running is non-nil while the goroutine runs, and closed when it ends.
	running chan struct{}
	// requesters wait for a flush that has not started.
	requesters map[*itlNexus]struct{}
}

func (b *backgroundFlush) init() {
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.requesters = make(map[*itlNexus]struct{})
}

// request schedules a flush of everything written so far.
func (b *backgroundFlush) request(by *itlNexus) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return blockdev.ErrClosed
	}
	b.requesters[by] = struct{}{}
	if b.running == nil {
		b.running = make(chan struct{})
		go b.run(by.lu)
	}
	return nil
}

// run flushes until no request is left.
func (b *backgroundFlush) run(lu *LogicalUnit) {
	for requesters := b.take(); requesters != nil; requesters = b.take() {
		err := lu.Volume().Flush(b.ctx)
		if err == nil {
			continue
		}
		se := *lu.Sense(err)
		se.Deferred, se.Err = true, fmt.Errorf("SYNCHRONIZE CACHE with IMMED: %w", err)
		for itl := range requesters {
			itl.deferError(&se)
		}
	}
}

// take returns the requesters since the last call; nil ends the goroutine.
func (b *backgroundFlush) take() map[*itlNexus]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requesters) == 0 {
		close(b.running)
		b.running = nil
		return nil
	}
	requesters := b.requesters
	b.requesters = make(map[*itlNexus]struct{})
	return requesters
}

// Close stops background work. It waits for the flushes of SYNCHRONIZE CACHE with
// IMMED; if ctx ends first, it aborts them and returns the context's error. An erasure
// is interrupted, and resumes after a restart. Later commands that need either end with
// NOT READY.
func (lu *LogicalUnit) Close(ctx context.Context) error {
	return errors.Join(lu.eraser.close(ctx), lu.background.close(ctx))
}

func (b *backgroundFlush) close(ctx context.Context) error {
	defer b.cancel()
	b.mu.Lock()
	b.closed = true
	running := b.running
	b.mu.Unlock()
	if running == nil {
		return nil
	}
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush still running: %w", ctx.Err())
	}
}
