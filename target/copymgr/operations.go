package copymgr

import (
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
)

// owner is whom a list identifier belongs to: an I_T nexus at a logical unit.
type owner struct {
	lu    *scsi.LogicalUnit
	nexus *scsi.Nexus
}

// operations keeps copy operations by list identifier (SPC-4 r37 5.17.4.2).
type operations struct {
	mu      sync.Mutex // guards everything below
	byOwner map[owner]*ownedOperations
}

type ownedOperations struct {
	byID     map[uint32]*operation
	finished []*operation // oldest first; may hold replaced ones
}

// operation is one copy operation, running or finished.
type operation struct {
	owner  owner
	listID uint32
	report report
	ended  time.Time
}

func newOperations() *operations {
	return &operations{byOwner: make(map[owner]*ownedOperations)}
}

// begin enters a running operation in place of a finished one with the same
// list identifier, whose report is dropped. It fails, and changes nothing, if
// one is running.
func (o *operations) begin(by owner, listID uint32, serviceAction byte) (*operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.byOwner[by]
	if owned == nil {
		owned = &ownedOperations{byID: make(map[uint32]*operation)}
		o.byOwner[by] = owned
	}
	owned.sweep()
	if old := owned.byID[listID]; old != nil && !old.report.finished() {
		return nil, illegal(ascOperationInProgress)
	}
	op := &operation{owner: by, listID: listID, report: report{serviceAction: serviceAction, status: copyRunningForeground}}
	owned.byID[listID] = op
	return op, nil
}

// finish stores the report of an operation, unless the operation was dropped
// meanwhile.
func (o *operations) finish(op *operation, r report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.byOwner[op.owner]
	if owned == nil || owned.byID[op.listID] != op {
		return
	}
	r.serviceAction = op.report.serviceAction
	op.report, op.ended = r, time.Now()
	owned.finished = append(owned.finished, op)
	owned.sweep()
}

// report returns the report for a list identifier.
func (o *operations) report(by owner, listID uint32) (report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.byOwner[by]
	if owned == nil {
		return report{}, false
	}
	owned.sweep()
	op := owned.byID[listID]
	if op == nil {
		return report{}, false
	}
	return op.report, true
}

// discardToken drops the token of a report that was delivered as a whole; the
// status stays.
func (o *operations) discardToken(by owner, listID uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if owned := o.byOwner[by]; owned != nil {
		if op := owned.byID[listID]; op != nil && op.report.finished() {
			op.report.token = nil
		}
	}
}

// dropNexus forgets what an I_T nexus had at a logical unit.
func (o *operations) dropNexus(by owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byOwner, by)
}

// dropLU forgets everything at a logical unit.
func (o *operations) dropLU(lu *scsi.LogicalUnit) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for by := range o.byOwner {
		if by.lu == lu {
			delete(o.byOwner, by)
		}
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
