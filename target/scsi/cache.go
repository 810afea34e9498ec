package scsi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"odx/blockdev"
)

// synchronizeIMMED asks for status before the flush is done.
const synchronizeIMMED = 0x02 // byte 1

// finishWrite makes what a command wrote durable when its FUA bit or the
// caching mode page asks for it.
func (lu *LogicalUnit) finishWrite(ctx context.Context, cdb []byte) error {
	if forcesUnitAccess(cdb) || lu.WriteThrough() {
		return lu.volume.Flush(ctx)
	}
	return nil
}

// prepareSynchronizeCache checks SYNCHRONIZE CACHE(10) and (16): SBC-3 5.26,
// 5.27. No block count means all blocks to the last.
func prepareSynchronizeCache(t *Task) error {
	r := rangeOf(t.CDB())
	if r.blocks == 0 && r.lba >= t.LU.Blocks() {
		return NewSense(KeyIllegalRequest, ASCLBAOutOfRange)
	}
	return t.LU.checkRange(r.lba, r.blocks)
}

// executeSynchronizeCache flushes the whole volume: one group commit serves
// every range. IMMED gets its status before that, as SBC-3 asks: the flush goes
// on behind it, and fails, if it does, by a deferred error.
func executeSynchronizeCache(ctx context.Context, t *Task) error {
	if t.CDB()[1]&synchronizeIMMED != 0 {
		return t.LU.background.request(t.itl)
	}
	return t.LU.volume.Flush(ctx)
}

// backgroundFlush runs the flushes of SYNCHRONIZE CACHE with IMMED. Any number
// of requests costs one goroutine, and one flush after the one that is running.
// A failure becomes a deferred error of every nexus that asked.
type backgroundFlush struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex // guards what follows; held alone
	closed bool
	// running is there while the goroutine is, and closed when it ends.
	running chan struct{}
	// askers wait for a flush that has not begun.
	askers map[*itlNexus]struct{}
}

func (b *backgroundFlush) init() {
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.askers = make(map[*itlNexus]struct{})
}

// request has what was written until now flushed.
func (b *backgroundFlush) request(by *itlNexus) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return blockdev.ErrClosed
	}
	b.askers[by] = struct{}{}
	if b.running == nil {
		b.running = make(chan struct{})
		go b.run(by.lu)
	}
	return nil
}

// run flushes until nobody asks any more.
func (b *backgroundFlush) run(lu *LogicalUnit) {
	for askers := b.take(); askers != nil; askers = b.take() {
		err := lu.volume.Flush(b.ctx)
		if err == nil {
			continue
		}
		sense := *lu.Sense(err)
		sense.Deferred, sense.Err = true, fmt.Errorf("SYNCHRONIZE CACHE with IMMED: %w", err)
		for itl := range askers {
			itl.deferError(&sense)
		}
	}
}

// take returns those who asked since the last call; nil ends the goroutine.
func (b *backgroundFlush) take() map[*itlNexus]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.askers) == 0 {
		close(b.running)
		b.running = nil
		return nil
	}
	askers := b.askers
	b.askers = make(map[*itlNexus]struct{})
	return askers
}

// Close ends what goes on behind the commands. It waits until the flushes that
// SYNCHRONIZE CACHE with IMMED left behind have ended; when ctx ends first, it
// aborts them and returns the context's error. An erasure is interrupted and
// goes on after a restart. Commands that come later and need either end with
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
