// Package fence keeps writes that were given up from landing over newer ones.
//
// A write to a file cannot be called back once it is in the kernel. When its
// command is aborted, the initiator gets its answer within a bound all the same,
// and writes the same blocks again: then the older data may land last. Writes
// remembers what is under way; a write whose context has ended closes its range
// to all others until it has returned.
package fence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrBusy: an aborted write to the range has not returned. Try again later.
var ErrBusy = errors.New("an aborted write to these blocks has not returned")

// Writes are the writes under way in one address space. The zero value is ready
// for use, and safe for concurrent use. In steady state it allocates nothing.
type Writes struct {
	underWay atomic.Int32 // used slots: without any, a read takes no lock

	mu    sync.Mutex // guards what follows; held for a scan of the slots
	slots []write
	free  []int
}

// write is one write. Its ctx is nil in a free slot.
type write struct {
	ctx         context.Context
	offset, end int64 // bytes
}

// Begin enters a write of length bytes at offset. It returns ErrBusy when an
// aborted write to any of them has not returned, and the error of ctx when that
// has ended. Without an error, the caller writes and then calls End with slot.
//
// A write that was entered before its context ended is seen by every later Begin
// and Check; one that was entered after that finds its context ended here, and
// does not happen. So a caller that ends the context of a write, and answers
// then, knows that whatever follows the answer does not meet the write.
func (w *Writes) Begin(ctx context.Context, offset, length int64) (slot int, err error) {
	if slot, err = w.enter(ctx, offset, length); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		w.End(slot)
		return 0, err
	}
	return slot, nil
}

func (w *Writes) enter(ctx context.Context, offset, length int64) (slot int, err error) {
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
	w.underWay.Add(1)
	return slot, nil
}

// End says that the write of Begin has returned.
func (w *Writes) End(slot int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[slot] = write{}
	w.free = append(w.free, slot)
	w.underWay.Add(-1)
}

// Check returns ErrBusy when an aborted write to any of length bytes at offset has
// not returned.
func (w *Writes) Check(offset, length int64) error {
	if w.underWay.Load() == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.check(offset, length)
}

// check is Check with mu held.
func (w *Writes) check(offset, length int64) error {
	for i := range w.slots {
		s := &w.slots[i]
		if s.ctx != nil && length > 0 && s.offset < offset+length && offset < s.end && s.ctx.Err() != nil {
			return fmt.Errorf("%d bytes at %d: %w", length, offset, ErrBusy)
		}
	}
	return nil
}
