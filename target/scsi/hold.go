package scsi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// medium is a volume with what it can do beyond reads and writes.
type medium struct {
	blockdev.Volume
	conditional blockdev.ConditionalWriter // nil if the volume has no atomic compare and write
	updater     blockdev.Updater           // nil if the volume has no atomic update
	atomic      blockdev.AtomicWriter      // nil if the volume has no atomic writes
	mapper      blockdev.Mapper            // nil if the volume does not report its map
}

func newMedium(v blockdev.Volume) *medium {
	m := &medium{Volume: v}
	m.conditional, _ = v.(blockdev.ConditionalWriter)
	m.updater, _ = v.(blockdev.Updater)
	m.atomic, _ = v.(blockdev.AtomicWriter)
	m.mapper, _ = v.(blockdev.Mapper)
	return m
}

// offers reports whether the same commands are possible with m and o.
func (m *medium) offers(o *medium) bool {
	return (m.conditional != nil) == (o.conditional != nil) && (m.updater != nil) == (o.updater != nil) &&
		(m.atomic != nil) == (o.atomic != nil)
}

func (lu *LogicalUnit) medium() *medium { return lu.on.Load() }

// hold keeps the tasks of a logical unit from beginning, for the moment in which its volume
// is replaced. It comes after the task set and the limits, so that a task that waits for its
// data or for a limit is not waited for. A task that is held occupies no worker, and can be
// aborted.
type hold struct {
	// state is the number of tasks that have begun, plus heldMode. A task that has counted
	// itself and then finds heldMode undoes the count.
	state atomic.Int64

	mu      sync.Mutex // guards what follows, and heldMode
	waiting []heldTask // in the order in which they came
	// idle is closed once no task is under way, released at the end; nil without a hold.
	idle, released chan struct{}
	// none is closed once no task waits; nil: nothing waits for that.
	none chan struct{}
}

// heldTask is a task that waits for the end of a hold.
type heldTask struct {
	task *Task
	wake func()
}

const heldMode = 1 << 62

// Positions of a task in a hold.
const (
	gateNone    uint32 = iota
	gateWaiting        // it is woken at the end of the hold
	gateBegun          // it counts as under way
)

// enter counts a task as under way, unless tasks are held.
func (h *hold) enter() bool {
	if h.state.Add(1)&heldMode == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Add(-1)
	h.noteIdle()
	return false
}

// begins reports whether the task may begin, as far as a hold is concerned. Once it may it
// counts as under way, until it leaves.
func (t *Task) begins() bool {
	if t.gate.Load() == gateBegun || t.place.Load() == placeNone {
		return true
	}
	if !t.LU.holding.enter() {
		return false
	}
	t.gate.Store(gateBegun)
	return true
}

// whenReleased reports whether the task may begin now; otherwise wake is called once, when it
// may. wake is as for WhenEnabled.
func (t *Task) whenReleased(wake func()) (begins bool) {
	if t.begins() {
		return true
	}
	h := &t.LU.holding
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil { // released in the meantime
		h.state.Add(1)
		t.gate.Store(gateBegun)
		return true
	}
	t.gate.Store(gateWaiting)
	h.waiting = append(h.waiting, heldTask{t, wake})
	return false
}

// leave takes a task out of the hold.
func (h *hold) leave(t *Task) {
	switch t.gate.Swap(gateNone) {
	case gateBegun:
		if h.state.Add(-1) == heldMode {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.noteIdle()
		}
	case gateWaiting:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.waiting = slices.DeleteFunc(h.waiting, func(w heldTask) bool { return w.task == t })
		if len(h.waiting) == 0 && h.none != nil {
			close(h.none)
			h.none = nil
		}
	}
}

// noteIdle notifies Hold if no task is under way. The caller holds mu.
func (h *hold) noteIdle() {
	if h.idle == nil || h.state.Load() != heldMode {
		return
	}
	select {
	case <-h.idle:
	default:
		close(h.idle)
	}
}

// begin begins a hold. The channel is closed once no task is under way. ok is false if there
// is one already.
func (h *hold) begin() (idle <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle != nil {
		return nil, false
	}
	h.idle, h.released = make(chan struct{}), make(chan struct{})
	h.state.Or(heldMode)
	h.noteIdle()
	return h.idle, true
}

// end ends a hold: what waits may begin.
func (h *hold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.released)
	h.idle, h.released = nil, nil
	h.state.And(^heldMode)
	for _, w := range h.waiting {
		if w.task.gate.CompareAndSwap(gateWaiting, gateBegun) {
			h.state.Add(1)
			w.wake() // with mu held: a task that has left is not woken
		}
	}
	h.waiting = nil
}

// Errors of Hold and SetVolume.
var (
	errHeld    = errors.New("the commands of the logical unit are held already")
	errNotHeld = errors.New("the commands of the logical unit are not held")
)

// Hold keeps commands of the logical unit from beginning until release is called, and returns
// once those that had begun have ended. INQUIRY, REPORT LUNS and REQUEST SENSE pass. An error,
// after which nothing is held, is that of ctx, or the sense data of an erasure that runs.
func (lu *LogicalUnit) Hold(ctx context.Context) (release func(), err error) {
	idle, ok := lu.holding.begin()
	if !ok {
		return nil, errHeld
	}
	var once sync.Once
	release = func() { once.Do(lu.holding.end) }
	select {
	case <-idle:
	case <-ctx.Done():
		release()
		return nil, fmt.Errorf("commands under way: %w", ctx.Err())
	}
	if err := lu.Ready(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// AwaitNoneHeld waits until no command is held, since those who sent them have aborted them or
// are gone, or for the end of ctx.
func (lu *LogicalUnit) AwaitNoneHeld(ctx context.Context) {
	h := &lu.holding
	h.mu.Lock()
	if len(h.waiting) == 0 {
		h.mu.Unlock()
		return
	}
	if h.none == nil {
		h.none = make(chan struct{})
	}
	none := h.none
	h.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// AwaitRelease waits for the end of a hold that there may be, or of ctx. It is for a command of
// another logical unit that is about to access this one, and that those who hold can see by
// then.
func (lu *LogicalUnit) AwaitRelease(ctx context.Context) {
	lu.holding.mu.Lock()
	released := lu.holding.released
	lu.holding.mu.Unlock()
	if released == nil {
		return
	}
	select {
	case <-released:
	case <-ctx.Done():
	}
}

// SetVolume replaces the volume by one with the same bytes, between Hold and the release.
// Nothing else changes: identity, reservations, mode parameters, nexuses. Where v can do less
// or more than the volume before it (atomic writes, for example), every nexus gets INQUIRY DATA
// HAS CHANGED, for the Block Limits VPD page (SPC-4 r37 7.8.1).
func (lu *LogicalUnit) SetVolume(v blockdev.Volume) error {
	lu.resizing.Lock()
	defer lu.resizing.Unlock()
	lu.holding.mu.Lock()
	held := lu.holding.idle != nil
	lu.holding.mu.Unlock()
	before, after := lu.medium(), newMedium(v)
	switch {
	case !held:
		return errNotHeld
	case uint64(v.Size())>>lu.blockShift != lu.Blocks():
		return fmt.Errorf("%w: a volume of %d bytes in place of one of %d", blockdev.ErrInvalid, v.Size(), before.Size())
	}
	lu.on.Store(after)
	if !after.offers(before) {
		lu.establish(sense.ASCInquiryDataChanged, nil)
	}
	return nil
}
