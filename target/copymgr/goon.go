package copymgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"odx/target/handover"
	"odx/target/scsi"
)

var errPosition = errors.New("the other process had come further than the command goes")

// waiting is an operation of another process that has not gone on yet.
type waiting struct {
	unit *logicalUnit
	op   *operation
	from *handover.RunningCopy
}

// keepCommand keeps the command of an operation in the background for another process.
func (op *operation) keepCommand(t *scsi.Task) {
	op.cdb, op.parameters = slices.Clone(t.CDB()), slices.Clone(t.DataOut())
}

// stopsAnywhere reports whether another process can go on with the operation wherever it
// stops. Making a token begins again there, which is better done only if it takes long.
func (op *operation) stopsAnywhere() bool {
	return op.background && op.serviceAction != actionPopulateToken && !op.whole.Load()
}

// beginWhole says that what the operation moves from now on cannot be continued where it
// stops.
func (o *operations) beginWhole(op *operation) {
	o.mu.Lock() // a handover asks stopsAnywhere and stops in one step
	defer o.mu.Unlock()
	op.whole.Store(true)
}

// handedOver reports whether the operation was stopped for another process to go on with
// it. Only its work may call it.
func (op *operation) handedOver() bool {
	return op.background && context.Cause(op.ctx) == errHandedOver
}

// despiteHandover calls fn with ctx, and again where a handover has stopped it. Its work
// is short, and what is done counts only after it.
func (op *operation) despiteHandover(ctx context.Context, fn func(context.Context) error) error {
	err := fn(ctx)
	if err != nil && op.handedOver() {
		err = fn(context.WithoutCancel(ctx))
	}
	return err
}

// park ends an operation here, with which another process goes on. It reports false for
// one whose nexus has ended, which is not passed.
func (m *Manager) park(op *operation) bool {
	o, c := m.operations, op.position
	o.mu.Lock()
	if op.owned.dropped {
		o.mu.Unlock()
		return false
	}
	c.ListID, c.CDB, c.Parameters, c.Began = op.listID, op.cdb, op.parameters, op.began
	c.Steps = op.progress.steps.Load()
	o.leave(op)
	op.owned.parked = append(op.owned.parked, op)
	o.mu.Unlock()
	m.log.WithFields(op.origin.fields()).WithField("transferred", c.TransferCount).Info("copy command stopped, to go on after the handover")
	close(op.done)
	return true
}

// parkedOf returns the operations of an owner with which another process goes on.
func (o *operations) parkedOf(by owner) (list []handover.RunningCopy) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if owned := o.byOwner[by]; owned != nil {
		for _, op := range owned.parked {
			list = append(list, *op.position)
		}
	}
	return list
}

// restoreRunning adds a running operation, which waits for GoOn. The caller holds
// operations.mu.
func (u *logicalUnit) restoreRunning(by owner, lun uint16, c *handover.RunningCopy) {
	o := u.manager.operations
	op := &operation{
		manager: u.manager, account: by.nexus.Account(u.lu), owner: by,
		origin: origin{command: commandName(u.table, c.CDB), nexus: by.nexus.ID, lun: scsi.EncodeLUN(lun), volume: u.name()},
		listID: c.ListID, identified: true, serviceAction: c.CDB[1] & 0x1F, units: unitsDestinationBlocks,
		began: c.Began, done: make(chan struct{}), background: true, cdb: c.CDB, parameters: c.Parameters,
		uses: []use{{u.lu, by.nexus.ID}}, owned: o.ownedBy(by),
	}
	if op.serviceAction == actionExtendedCopyLID4 {
		op.units = unitsBytes
		op.progress.segments.Store(uint32(c.Segment) + 1)
	}
	op.progress.transferred.Store(c.TransferCount)
	op.progress.steps.Store(c.Steps)
	op.owned.byID[c.ListID] = op
	op.owned.running++
	o.running[op] = struct{}{}
	o.waiting = append(o.waiting, waiting{u, op, c})
}

// GoOn goes on with the copies that another process has passed. It is called when all
// nexuses are there, which copies between logical units need, and before any command.
func (m *Manager) GoOn() {
	o := m.operations
	o.mu.Lock()
	list := o.waiting
	o.waiting = nil
	o.mu.Unlock()
	for _, w := range list {
		m.operations.setPlan(w.op, plan{background: true, work: w.work()})
		m.running.Go(func() { w.op.Run(m.base) })
	}
}

// work returns the work that is left. An error, such as a token that has ended since, ends the
// operation when it runs.
func (w *waiting) work() work {
	switch w.op.serviceAction {
	case actionPopulateToken:
		return w.populate()
	case actionWriteUsingToken:
		return w.writeUsing()
	case actionExtendedCopyLID4:
		return w.extendedCopy()
	}
	return w.fails(fmt.Errorf("service action %02Xh does not copy in the background", w.op.serviceAction))
}

// fails returns work that ends with err.
func (w *waiting) fails(err error) work {
	return func(context.Context, *operation) (report, error) {
		return report{sense: senseOf(w.unit.lu, writeUsingSense, err), transferCount: w.from.TransferCount}, err
	}
}

func (w *waiting) populate() work {
	p, err := w.unit.planPopulate(w.op.owner.nexus, w.from.Parameters)
	if err != nil {
		return func(context.Context, *operation) (report, error) {
			return report{sense: senseOf(w.unit.lu, populateSense, err)}, err
		}
	}
	return p.work
}

func (w *waiting) writeUsing() work {
	write := &tokenWrite{unit: w.unit, done: w.from.TransferCount}
	_, err := write.prepare(w.op.owner.nexus, w.from.Parameters)
	if write.done > write.blocks {
		err = cmp.Or(err, errPosition)
	}
	if err != nil {
		if write.done == write.blocks {
			err = nil // all is written, and the token may have been deleted for that
		}
		return func(_ context.Context, op *operation) (report, error) { return write.result(op, 0, err) }
	}
	return write.writeBackground
}

func (w *waiting) extendedCopy() work {
	list, err := parseLID4(w.from.Parameters)
	if err == nil && int(w.from.Segment) > len(list.segments) {
		err = errPosition
	}
	if err != nil {
		return w.fails(err)
	}
	x := &extendedCopy{unit: w.unit, nexus: w.op.owner.nexus, list: list, carry: w.from.Residual, carriedSource: int(w.from.ResidualSource)}
	x.held.bytes, x.held.discarded = w.from.Held, w.from.HeldDiscarded
	x.from.segment, x.from.bytes, x.from.transferred = int(w.from.Segment), w.from.SegmentBytes, w.from.TransferCount
	x.resolve(x.unit.manager.base)
	x.failRefused()
	o := w.unit.manager.operations
	o.mu.Lock()
	w.op.uses = x.uses()
	o.mu.Unlock()
	return x.run
}

// failRefused has segments fail whose token cannot be used any more, as if it had ended
// while they were copied.
func (x *extendedCopy) failRefused() {
	for id, r := range x.resolved {
		if r.refused != nil {
			at := x.list.cscds[int(id)-x.list.firstCSCD].at
			x.resolved[id] = resolution{failed: &segmentError{asc: ascCopyTargetNotReachable, cscd: at, err: r.refused}}
		}
	}
}

// uses returns the logical units that the segments access.
func (x *extendedCopy) uses() (list []use) {
	for _, r := range x.resolved {
		if r.reached != nil && r.reached.rod == nil {
			list = append(list, use{r.reached.unit.lu, r.reached.nexus.ID})
		}
	}
	return list
}

// stopAt sets the position of a stopped operation at n bytes of the segment of index i, if
// another process can go on from there.
func (x *extendedCopy) stopAt(op *operation, i int, n uint64) {
	if !op.handedOver() || op.whole.Load() {
		return
	}
	op.position = &handover.RunningCopy{
		TransferCount: op.progress.transferred.Load(), Segment: uint16(i), SegmentBytes: n,
		Residual: x.carry, ResidualSource: uint32(x.carriedSource), Held: x.held.bytes, HeldDiscarded: x.held.discarded,
	}
}
