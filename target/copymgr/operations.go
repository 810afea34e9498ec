package copymgr

import (
	"cmp"
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
	// maxAllReports bounds the finished reports of all: where there are more, the owner
	// that has most loses its oldest.
	maxAllReports = 4096
	// maxHolding bounds the operations of one I_T nexus at one logical unit whose
	// held data is kept, maxAllHolding those of all.
	maxHolding    = 8
	maxAllHolding = 64
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
	// reports and holding are the lengths of all finished and holding.
	reports, holding int
	// waiting are running, and wait for GoOn.
	waiting []waiting
}

// ownedOperations are those of one I_T nexus at one logical unit.
type ownedOperations struct {
	byID     map[uint32]*operation
	running  int
	finished []*operation // oldest first; may hold replaced ones
	holding  []*operation // with held data, oldest first
	// parked are those that another process goes on with.
	parked  []*operation
	dropped bool // no report can be requested any more
}

func newOperations() *operations {
	return &operations{byOwner: make(map[owner]*ownedOperations), running: make(map[*operation]struct{})}
}

// add adds op as running, and drops the report of a finished one with the same list
// identifier. It fails, without effect, if one is running or too many are.
func (o *operations) add(op *operation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.ownedBy(op.owner)
	o.sweep(owned)
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

// ownedBy returns the operations of an owner. The caller holds the mutex.
func (o *operations) ownedBy(by owner) *ownedOperations {
	owned := o.byOwner[by]
	if owned == nil {
		owned = &ownedOperations{byID: make(map[uint32]*operation)}
		o.byOwner[by] = owned
	}
	return owned
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
		op.aborted = cmp.Or(op.aborted, cause)
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
	o.leave(op)
	owned := op.owned
	if owned.dropped || !op.identified {
		return false
	}
	o.keep(owned, op)
	return true
}

// leave removes an operation from those that run. The caller holds the mutex.
func (o *operations) leave(op *operation) {
	op.work, op.ctx, op.cancel, op.uses = nil, nil, nil, nil // the report stays, for a while
	op.cdb, op.parameters = nil, nil
	delete(o.running, op)
	op.owned.running--
}

// keep keeps the report of a finished operation, and drops the oldest above the limits.
// The caller holds the mutex.
func (o *operations) keep(owned *ownedOperations, op *operation) {
	owned.finished = append(owned.finished, op)
	o.reports++
	o.hold(owned, op)
	o.sweep(owned)
	for o.reports > maxAllReports {
		o.forget(o.largest(func(w *ownedOperations) int { return len(w.finished) }))
	}
}

// find returns the operation of a list identifier, or nil. The caller holds the mutex.
func (o *operations) find(by owner, listID uint32) *operation {
	owned := o.byOwner[by]
	if owned == nil {
		return nil
	}
	o.sweep(owned)
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

// removeLU drops the reports of a logical unit and aborts the operations that access it. It
// returns as dropLU does.
func (o *operations) removeLU(lu *scsi.LogicalUnit) {
	o.mu.Lock()
	for by := range o.byOwner {
		if by.lu == lu {
			o.drop(by)
		}
	}
	aborted := o.abortAll(errRemoved, func(op *operation) bool {
		return op.owner.lu == lu || slices.ContainsFunc(op.uses, func(u use) bool { return u.lu == lu })
	})
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
		o.reports -= len(owned.finished)
		o.holding -= len(owned.holding)
		owned.finished, owned.holding = nil, nil
		delete(o.byOwner, by)
	}
}

// largest returns the owned operations that have most of what size counts. The caller
// holds the mutex.
func (o *operations) largest(size func(*ownedOperations) int) (most *ownedOperations) {
	for _, w := range o.byOwner {
		if most == nil || size(w) > size(most) {
			most = w
		}
	}
	return most
}

// hold keeps the held data of op, and drops the oldest above the limits. The caller holds
// the mutex.
func (o *operations) hold(w *ownedOperations, op *operation) {
	if len(op.report.held) == 0 {
		return
	}
	w.holding = append(w.holding, op)
	if o.holding++; len(w.holding) > maxHolding {
		o.discardHeld(w)
	}
	for o.holding > maxAllHolding {
		o.discardHeld(o.largest(func(w *ownedOperations) int { return len(w.holding) }))
	}
}

// discardHeld drops the oldest held data of an owner. The caller holds the mutex.
func (o *operations) discardHeld(w *ownedOperations) {
	oldest := &w.holding[0].report
	oldest.heldDiscarded = oldest.heldDiscarded || len(oldest.held) > 0
	oldest.held = nil
	w.holding[0] = nil
	w.holding = w.holding[1:]
	o.holding--
}

// sweep drops the finished operations of an owner that are too old or too many. The
// caller holds the mutex.
func (o *operations) sweep(w *ownedOperations) {
	oldest := time.Now().Add(-keepReport)
	for len(w.finished) > 0 && (len(w.finished) > maxReports || !w.finished[0].ended.After(oldest)) {
		o.forget(w)
	}
}

// forget drops the oldest finished operation of an owner, with its held data. The caller
// holds the mutex.
func (o *operations) forget(w *ownedOperations) {
	op := w.finished[0]
	if w.byID[op.listID] == op {
		delete(w.byID, op.listID)
	}
	if len(w.holding) > 0 && w.holding[0] == op {
		o.discardHeld(w)
	}
	w.finished[0] = nil
	w.finished = w.finished[1:]
	o.reports--
}
