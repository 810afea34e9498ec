package copymgr

import (
	"context"
	"time"

	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// suspend adds to u the reports of an I_T nexus at a logical unit, for another process.
// No command runs. The copies in the background may end until ctx does, and are then
// aborted with what they have done in their reports.
func (m *Manager) suspend(ctx context.Context, by owner, u *handover.Unit) {
	m.operations.awaitOwned(ctx, by)
	u.Copies = m.operations.finishedOf(by)
}

// awaitOwned waits until no operation of an owner runs. When ctx ends, it aborts all
// operations, also those of other owners, since ctx bounds the wait for all of them.
func (o *operations) awaitOwned(ctx context.Context, by owner) {
	running := o.runningOf(by)
	for _, op := range running {
		select {
		case <-op.done:
			continue
		case <-ctx.Done():
		}
		o.mu.Lock()
		o.abortAll(errHandedOver, func(*operation) bool { return true })
		o.mu.Unlock()
		awaitEnd(running)
		return
	}
}

// runningOf returns the running operations of an owner.
func (o *operations) runningOf(by owner) (list []*operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for op := range o.running {
		if op.owner == by {
			list = append(list, op)
		}
	}
	return list
}

// finishedOf returns the reports of an owner that can still be requested, the oldest
// first.
func (o *operations) finishedOf(by owner) (list []handover.Copy) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := o.byOwner[by]
	if owned == nil {
		return nil
	}
	o.sweep(owned)
	for _, op := range owned.finished {
		if owned.byID[op.listID] == op {
			list = append(list, op.report.suspend(op.listID, op.ended))
		}
	}
	return list
}

// suspend returns the report of a finished operation.
func (r *report) suspend(listID uint32, ended time.Time) handover.Copy {
	c := handover.Copy{
		ListID: listID, ServiceAction: r.serviceAction, Status: r.status, Completion: r.completion,
		Sense: scsi.SuspendSense(r.sense), Units: r.units, TransferCount: r.transferCount,
		Steps: r.steps, Segments: r.segments, Ended: ended,
		Held: r.held, HeldDiscarded: r.heldDiscarded, DetailsReported: r.detailsReported,
	}
	if r.token != nil {
		c.Token = r.token[:]
	}
	return c
}

// restore makes the reports in u those of an I_T nexus at a logical unit.
func (m *Manager) restore(by owner, u *handover.Unit) {
	o := m.operations
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range u.Copies {
		o.restore(m, by, &u.Copies[i])
	}
}

// restore adds a finished operation. The caller holds the mutex.
func (o *operations) restore(m *Manager, by owner, c *handover.Copy) {
	owned := o.byOwner[by]
	if owned == nil {
		owned = &ownedOperations{byID: make(map[uint32]*operation)}
		o.byOwner[by] = owned
	}
	op := &operation{
		manager: m, owner: by, listID: c.ListID, identified: true, serviceAction: c.ServiceAction, units: c.Units,
		owned: owned, done: make(chan struct{}), ended: c.Ended,
		report: report{
			serviceAction: c.ServiceAction, status: c.Status, completion: c.Completion, sense: scsi.ContinueSense(c.Sense),
			units: c.Units, transferCount: c.TransferCount, steps: c.Steps, segments: c.Segments,
			held: c.Held, heldDiscarded: c.HeldDiscarded, detailsReported: c.DetailsReported,
		},
	}
	close(op.done)
	if len(c.Token) == tokens.TokenLength {
		op.report.token = (*tokens.Token)(c.Token)
	}
	owned.byID[c.ListID] = op
	o.keep(owned, op)
}
