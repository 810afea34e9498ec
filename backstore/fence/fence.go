// Package fence prevents aborted writes from overwriting newer data.
//
// A write to a file cannot be cancelled once it is in the kernel. When its command
// is aborted, the initiator receives the response within a bound and may write the
// same blocks again; the older data could then reach the file last. Writes tracks
// the writes in flight: a write whose context has ended blocks its range for all
// others until it returns.
package fence

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"odx/blockdev"
)

// Writes tracks the writes in flight in one address space. The zero value is ready
// for use and safe for concurrent use. In steady state it allocates nothing.
type Writes struct {
	inFlight atomic.Int32 // used slots; when 0, Check takes no lock

	mu    sync.Mutex // guards the fields below; held while the slots are scanned
	slots []write
	free  []int
}

// write is a slot; ctx is nil if the slot is free.
type write struct {
	ctx         context.Context
	offset, end int64 // bytes
}

// Begin registers a write of length bytes at offset. It returns blockdev.ErrBusy if an
// aborted write to any of these bytes is in flight, and the error of ctx if ctx has
// ended. On success the caller writes and then calls End with slot.
//
// A write that is registered before its context ends is visible to every later
// Begin and Check. A write that is registered later detects the ended context here
// and does not start. A caller that ends the context of a write before it responds
// therefore knows that no operation after the response overlaps the write.
func (w *Writes) Begin(ctx context.Context, offset, length int64) (slot int, err error) {
	if slot, err = w.register(ctx, offset, length); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		w.End(slot)
		return 0, err
	}
	return slot, nil
}

func (w *Writes) register(ctx context.Context, offset, length int64) (slot int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.check(offset, length); err != nil {
		return 0, err
	}
	if n := len(w.free); n > 0 {
		slot, w.free = w.free[n-1], w.free[:n-1]
	} else {
		slot, w.slots = len(w.slots), append(w.slots, write{})
	}
	w.slots[slot] = write{ctx, offset, offset + length}
	w.inFlight.Add(1)
	return slot, nil
}

// End removes the write of slot, which has returned.
func (w *Writes) End(slot int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[slot] = write{}
	w.free = append(w.free, slot)
	w.inFlight.Add(-1)
}

// Check returns blockdev.ErrBusy if an aborted write to any of length bytes at offset
// is in flight.
func (w *Writes) Check(offset, length int64) error {
	if w.inFlight.Load() == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.check(offset, length)
}

// check is Check. The caller holds mu.
func (w *Writes) check(offset, length int64) error {
	for i := range w.slots {
		s := &w.slots[i]
		if s.ctx != nil && length > 0 && s.offset < offset+length && offset < s.end && s.ctx.Err() != nil {
			return fmt.Errorf("%w: an aborted write to some of %d bytes at %d is in flight", blockdev.ErrBusy, length, offset)
		}
	}
	return nil
}
