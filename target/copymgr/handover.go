package copymgr

import (
	"context"
	"time"

	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// suspend adds to u the reports of an I_T nexus at a logical unit, and its copies in the
// background, for another process. No command runs. Copies stop at once. One that can only
// begin again, or cannot be continued, may end until ctx does.
func (m *Manager) suspend(ctx context.Context, by owner, u *handover.Unit) {
	m.operations.awaitOwned(ctx, by)
	u.Copies = m.operations.finishedOf(by)
	u.Running = m.operations.parkedOf(by)
}

// awaitOwned waits until no operation of an owner runs. It stops those of other owners,
// too, so that none waits for another.
func (o *operations) awaitOwned(ctx context.Context, by owner) {
	running := o.runningOf(by)
	o.mu.Lock()
	o.abortAll(errHandedOver, (*operation).stopsAnywhere)
	o.mu.Unlock()
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

// restore makes the reports and the running copies in h those of an I_T nexus at the
// logical unit. The copies wait for GoOn.
func (u *logicalUnit) restore(n *scsi.Nexus, h *handover.Unit) {
	o, by := u.manager.operations, owner{u.lu, n}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range h.Copies {
		o.restore(u.manager, by, &h.Copies[i])
	}
	for i := range h.Running {
		u.restoreRunning(by, h.LUN, &h.Running[i])
	}
}

// restore adds a finished operation. The caller holds the mutex.
func (o *operations) restore(m *Manager, by owner, c *handover.Copy) {
	owned := o.ownedBy(by)
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
