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
	// maxReports bounds the finished reports of one I_T nexus at one logical unit; the
	// oldest is dropped first. An initiator requests a report right after the command,
	// so this exceeds the commands that a session has in flight.
	maxReports = 512
	// maxHolding bounds the operations of one I_T nexus at one logical unit whose
	// held data is kept.
	maxHolding = 8
	// maxRunning bounds the concurrent copy operations: TOTAL CONCURRENT COPIES.
	// maxRunningOfOwner prevents one I_T nexus from using all of them.
	maxRunning        = 255
	maxRunningOfOwner = 128
	// abortWait bounds the wait for the end of an aborted operation. Its context has
	// ended, so it writes nothing more even if it hangs.
	abortWait = 2 * time.Second
	// listIDWait bounds the wait of a command for another one with its list identifier.
	listIDWait = 20 * time.Second
)

var (
	errListID     = errors.New("list identifier in use by a running operation")
	errListFormat = errors.New("list identifier in use by a running operation with another parameter list format")
	errTooMany    = errors.New("too many copy operations running")
)

// operations has the copy operations by list identifier (SPC-4 r37 5.17.4.2).
type operations struct {
	mu      sync.Mutex // guards the fields below
	byOwner map[owner]*ownedOperations
	running map[*operation]struct{}
}

// ownedOperations are those of one I_T nexus at one logical unit.
type ownedOperations struct {
	byID     map[uint32]*operation
	running  int
	finished []*operation // oldest first; may hold replaced ones
	holding  []*operation // with held data, oldest first
	dropped  bool         // no report can be requested any more
}

func newOperations() *operations {
	return &operations{byOwner: make(map[owner]*ownedOperations), running: make(map[*operation]struct{})}
}

// add adds op as running, and drops the report of a finished one with the same list
// identifier. It fails, without effect, if one is running or too many are.
func (o *operations) add(op *operation) error {
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

// addInTurn is add for a foreground command with an 8-bit list identifier. While an
// operation with the same one is running, it waits for its end, at most listIDWait:
// initiators without list identifiers send the same one with all of their commands,
// several concurrently (qemu: 1).
func (o *operations) addInTurn(ctx context.Context, op *operation) error {
	limit := time.NewTimer(listIDWait)
	defer limit.Stop()
	for {
		err := o.add(op)
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

// runningWith returns the running operation with a list identifier, or nil.
func (o *operations) runningWith(by owner, listID uint32) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.find(by, listID); op != nil && !op.finished() {
		return op
	}
	return nil
}

// setPlan sets the work of an operation.
func (o *operations) setPlan(op *operation, p plan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.work, op.background = p.work, p.background
}

// setContext sets the context of an operation, and aborts one whose abort was requested
// before.
func (o *operations) setContext(op *operation, ctx context.Context, cancel context.CancelCauseFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.ctx, op.cancel = ctx, cancel
	if op.aborted != nil {
		cancel(op.aborted)
	}
}

// abort aborts an operation for cause. The caller holds operations.mu.
func (op *operation) abort(cause error) {
	if op.cancel == nil {
		op.aborted = cause
		return
	}
	op.cancel(cause)
}

// finish stores the report of an operation, and reports whether the initiator can still
// request it.
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

// find returns the operation of a list identifier, or nil. The caller holds the mutex.
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
	return op.currentReport(), true
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

// abort aborts the running operation of a list identifier, and returns it so that the
// caller can wait for its end; nil if none is running.
func (o *operations) abort(by owner, listID uint32, cause error) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.find(by, listID)
	if op == nil || op.finished() {
		return nil
	}
	op.abort(cause)
	return op
}

// dropNexus drops the reports of an I_T nexus at a logical unit. Operations in the
// background continue (SPC-4 r37 table 109), without a report.
func (o *operations) dropNexus(by owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(by)
}

// dropLU drops all reports at a logical unit and aborts its operations. It returns when
// they move no more data, or after abortWait.
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

// preempt aborts operations with the rights of I_T nexuses at a logical unit. Their
// reports stay. It returns as dropLU does.
func (o *operations) preempt(lu *scsi.LogicalUnit, preempted []scsi.NexusID) {
	o.mu.Lock()
	aborted := o.abortAll(errPreempted, func(op *operation) bool {
		return slices.ContainsFunc(op.uses, func(u use) bool { return u.lu == lu && slices.Contains(preempted, u.by) })
	})
	o.mu.Unlock()
	awaitEnd(aborted)
}

// abortAll aborts the running operations that match, and returns them. The caller holds
// the mutex.
func (o *operations) abortAll(cause error, match func(*operation) bool) (aborted []*operation) {
	for op := range o.running {
		if match(op) {
			op.abort(cause)
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

// drop drops the operations of an owner. The caller holds the mutex.
func (o *operations) drop(by owner) {
	if owned := o.byOwner[by]; owned != nil {
		owned.dropped = true
		delete(o.byOwner, by)
	}
}

// hold keeps the held data of op, and drops that of the oldest operation above
// maxHolding. The caller holds the mutex.
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

// sweep drops finished operations that are too old or too many. The caller holds the
// mutex.
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
