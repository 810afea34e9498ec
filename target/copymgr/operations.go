package copymgr

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"odx/target/scsi"
)

const (
	// keepReport is how long the report of a finished copy operation is kept.
	keepReport = time.Minute
	// maxReports bounds the finished reports of one I_T nexus at one logical
	// unit; the oldest goes first. An initiator asks for a report right after
	// the command, so this covers more commands than a session has in flight.
	maxReports = 512
	// maxHolding bounds the operations of one I_T nexus at one logical unit whose
	// held data is kept.
	maxHolding = 8
	// maxRunning bounds the copy operations that run at once: TOTAL CONCURRENT
	// COPIES. maxRunningOfOwner keeps one I_T nexus from taking all of them.
	maxRunning        = 255
	maxRunningOfOwner = 128
	// abortWait is how long the end of an aborted operation is waited for. Its
	// context has ended, so that it writes nothing any more even if it hangs.
	abortWait = 2 * time.Second
	// listIDWait is how long a command waits for another with its list identifier.
	listIDWait = 20 * time.Second
)

var (
	errListID     = errors.New("an operation with this list identifier is running")
	errListFormat = errors.New("an operation with this list identifier and another parameter list format is running")
	errTooMany    = errors.New("too many copy operations are running")
)

// operations keeps copy operations by list identifier (SPC-4 r37 5.17.4.2).
type operations struct {
	mu      sync.Mutex // guards everything below
	byOwner map[owner]*ownedOperations
	running map[*operation]struct{}
}

// ownedOperations are those of one I_T nexus at one logical unit.
type ownedOperations struct {
	byID     map[uint32]*operation
	running  int
	finished []*operation // oldest first; may hold replaced ones
	holding  []*operation // with held data, oldest first
	dropped  bool         // nobody can ask any more
}

func newOperations() *operations {
	return &operations{byOwner: make(map[owner]*ownedOperations), running: make(map[*operation]struct{})}
}

// begin enters op as running, in place of a finished one with the same list
// identifier, whose report is dropped. It fails, and changes nothing, if one is
// running or too many are.
func (o *operations) begin(op *operation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.byOwner[op.owner]
	if owned == nil {
		owned = &ownedOperations{byID: make(map[uint32]*operation)}
		o.byOwner[op.owner] = owned
	}
	owned.sweep()
	if old := owned.byID[op.listID]; op.identified && old != nil && !old.finished() {
		if old.isLID1() != op.isLID1() {
			return errListFormat
		}
		return errListID
	}
	if len(o.running) >= maxRunning || owned.running >= maxRunningOfOwner {
		return errTooMany
	}
	if op.identified {
		owned.byID[op.listID] = op
	}
	owned.running++
	op.owned = owned
	o.running[op] = struct{}{}
	op.began, op.done = time.Now(), make(chan struct{})
	return nil
}

// beginInTurn is begin for a command in the foreground with an 8-bit list identifier.
// While an operation with the same one is running, it waits for its end, at most
// listIDWait: initiators that know of no others send the same with all of their
// commands, several at a time (qemu: 1).
func (o *operations) beginInTurn(ctx context.Context, op *operation) error {
	limit := time.NewTimer(listIDWait)
	defer limit.Stop()
	for {
		err := o.begin(op)
		if err != errListID {
			return err
		}
		running := o.runningWith(op.owner, op.listID)
		if running == nil {
			continue // it has ended
		}
		select {
		case <-running.done:
		case <-limit.C:
			return errListID
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runningWith returns the running operation with a list identifier, nil when there
// is none.
func (o *operations) runningWith(by owner, listID uint32) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.find(by, listID); op != nil && !op.finished() {
		return op
	}
	return nil
}

// plan enters what an operation is to do.
func (o *operations) plan(op *operation, p plan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.work, op.background = p.work, p.background
}

// setContext enters how to end an operation, and ends one that was aborted before.
func (o *operations) setContext(op *operation, ctx context.Context, cancel context.CancelCauseFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.ctx, op.cancel = ctx, cancel
	if op.aborted != nil {
		cancel(op.aborted)
	}
}

// end has an operation end for cause. operations.mu is held.
func (op *operation) end(cause error) {
	if op.cancel == nil {
		op.aborted = cause
		return
	}
	op.cancel(cause)
}

// finish stores the report of an operation. It reports whether the initiator can
// still ask for it.
func (o *operations) finish(op *operation, r report) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.report, op.ended = r, time.Now()
	delete(o.running, op)
	owned := op.owned
	owned.running--
	if owned.dropped || !op.identified {
		return false
	}
	owned.finished = append(owned.finished, op)
	owned.hold(op)
	owned.sweep()
	return true
}

// find returns the operation of a list identifier, nil when there is none. The
// mutex is held.
func (o *operations) find(by owner, listID uint32) *operation {
	owned := o.byOwner[by]
	if owned == nil {
		return nil
	}
	owned.sweep()
	return owned.byID[listID]
}

// report returns the report for a list identifier.
func (o *operations) report(by owner, listID uint32) (report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.find(by, listID)
	if op == nil {
		return report{}, false
	}
	return op.snapshot(), true
}

// change changes the report of a finished operation.
func (o *operations) change(by owner, listID uint32, fn func(r *report)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.find(by, listID); op != nil && op.finished() {
		fn(&op.report)
	}
}

// discard drops the report of a finished operation.
func (o *operations) discard(by owner, listID uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.find(by, listID); op != nil && op.finished() {
		delete(op.owned.byID, listID)
	}
}

// abort ends the running operation of a list identifier, and returns it for its
// end to be waited for; nil when none is running.
func (o *operations) abort(by owner, listID uint32, cause error) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.find(by, listID)
	if op == nil || op.finished() {
		return nil
	}
	op.end(cause)
	return op
}

// dropNexus forgets what an I_T nexus had at a logical unit. What runs in the
// background goes on (SPC-4 r37 table 109), and nobody can ask about it.
func (o *operations) dropNexus(by owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(by)
}

// dropLU forgets everything at a logical unit and ends what runs there. It
// returns when that moves no more data, or after abortWait.
func (o *operations) dropLU(lu *scsi.LogicalUnit, cause error) {
	o.mu.Lock()
	for by := range o.byOwner {
		if by.lu == lu {
			o.drop(by)
		}
	}
	aborted := o.abortAll(cause, func(op *operation) bool { return op.owner.lu == lu })
	o.mu.Unlock()
	awaitEnd(aborted)
}

// preempt ends what runs with the rights of I_T nexuses at a logical unit. Their
// reports stay. It returns as dropLU does.
func (o *operations) preempt(lu *scsi.LogicalUnit, preempted []scsi.NexusID) {
	o.mu.Lock()
	aborted := o.abortAll(errPreempted, func(op *operation) bool {
		return slices.ContainsFunc(op.uses, func(u use) bool { return u.lu == lu && slices.Contains(preempted, u.by) })
	})
	o.mu.Unlock()
	awaitEnd(aborted)
}

// abortAll ends the running operations that match, and returns them. The mutex
// is held.
func (o *operations) abortAll(cause error, match func(*operation) bool) (aborted []*operation) {
	for op := range o.running {
		if match(op) {
			op.end(cause)
			aborted = append(aborted, op)
		}
	}
	return aborted
}

// awaitEnd waits until aborted operations move no more data, or for abortWait.
func awaitEnd(aborted []*operation) {
	limit := time.NewTimer(abortWait)
	defer limit.Stop()
	for _, op := range aborted {
		select {
		case <-op.done:
		case <-limit.C:
			return
		}
	}
}

// drop forgets the operations of an owner. The mutex is held.
func (o *operations) drop(by owner) {
	if owned := o.byOwner[by]; owned != nil {
		owned.dropped = true
		delete(o.byOwner, by)
	}
}

// hold keeps the held data of op, and drops that of the oldest operation if
// there is too much of it. The mutex is held.
func (w *ownedOperations) hold(op *operation) {
	if len(op.report.held) == 0 {
		return
	}
	w.holding = append(w.holding, op)
	if len(w.holding) > maxHolding {
		oldest := &w.holding[0].report
		oldest.heldDiscarded = oldest.heldDiscarded || len(oldest.held) > 0
		oldest.held = nil
		w.holding[0] = nil
		w.holding = w.holding[1:]
	}
}

// sweep drops finished operations that are too old or too many. The mutex is
// held.
func (w *ownedOperations) sweep() {
	oldest := time.Now().Add(-keepReport)
	for len(w.finished) > 0 {
		op := w.finished[0]
		if len(w.finished) <= maxReports && op.ended.After(oldest) {
			return
		}
		if w.byID[op.listID] == op {
			delete(w.byID, op.listID)
		}
		w.finished[0] = nil
		w.finished = w.finished[1:]
	}
}
