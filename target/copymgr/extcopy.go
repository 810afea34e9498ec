package copymgr

import (
	"context"
	"errors"
	"fmt"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// executeExtendedCopy is EXTENDED COPY; parse decodes its parameter list (SPC-4 r37
// 6.4, 6.5).
func (u *logicalUnit) executeExtendedCopy(ctx context.Context, t *scsi.Task, name string, parse func([]byte) (*copyList, error)) error {
	cdb := t.CDB()
	if parameterListLength(cdb) == 0 {
		return nil
	}
	if parameterListLength(cdb) > maxParameterListLength {
		se := illegal(sense.ASCParameterListLengthError)
		u.manager.refuse(u.originOf(t, name), se, errListTooLong)
		return se
	}
	list, err := parse(t.DataOut())
	if err != nil {
		u.manager.refuse(u.originOf(t, name), u.lu.Sense(err), errParameters)
		return err
	}
	op := &operation{
		manager: u.manager, account: t.Account(),
		owner: owner{u.lu, t.Nexus}, origin: u.originOf(t, name), serviceAction: cdb[1] & 0x1F,
		listID: list.listID, identified: list.identified, units: unitsBytes,
	}
	x := &extendedCopy{unit: u, nexus: t.Nexus, list: list}
	x.resolve(ctx)
	for _, r := range x.resolved {
		if r.refused != nil {
			if errors.Is(r.refused, blockdev.ErrBusy) { // of another server, which is slow
				u.manager.refuseStatus(op.origin, statusBusy, r.refused)
				return r.refused
			}
			se := senseOf(u.lu, writeUsingSense, r.refused)
			u.manager.refuse(op.origin, se, r.refused)
			return se
		}
	}
	op.uses = x.uses()
	if list.immediate {
		op.keepCommand(t)
	}
	begin := u.manager.operations.add
	if op.isLID1() {
		begin = func(op *operation) error { return u.manager.operations.addInTurn(ctx, op) }
	}
	if err := begin(op); err != nil {
		return u.refuseStart(op, err)
	}
	for _, other := range op.uses { // after begin: see Manager.Using
		if other.lu != u.lu {
			other.lu.AwaitRelease(ctx)
		}
	}
	err = u.manager.execute(ctx, op, plan{background: list.immediate, work: x.run})
	if err == nil && list.generateSense {
		se := sense.New(sense.KeyCompleted, ascExtendedCopyInformation)
		se.CommandSpecific, se.HasCommandSpecific = uint64(len(list.segments)), true
		t.SetGoodSense(se)
	}
	return err
}

func (u *logicalUnit) executeExtendedCopyLID1(ctx context.Context, t *scsi.Task) error {
	return u.executeExtendedCopy(ctx, t, nameExtendedCopyLID1, parseLID1)
}

func (u *logicalUnit) executeExtendedCopyLID4(ctx context.Context, t *scsi.Task) error {
	return u.executeExtendedCopy(ctx, t, nameExtendedCopyLID4, parseLID4)
}

var (
	errParameters = errors.New("invalid parameter list")
	errInexact    = errors.New("segment does not fill whole blocks")
	errOutside    = errors.New("segment exceeds the logical unit")
	errTooLong    = errors.New("segment exceeds MAXIMUM SEGMENT LENGTH")
)

// extendedCopy is a running EXTENDED COPY.
type extendedCopy struct {
	unit  *logicalUnit
	nexus *scsi.Nexus
	list  *copyList
	// resolved are the logical units by CSCD id.
	resolved map[uint16]resolution
	// carry is the residual data of the previous segments: first destination data,
	// which is already processed, then carriedSource bytes of source data (SPC-4 r37
	// 5.17.7.2).
	carry         []byte
	carriedSource int
	held          keptData
	// from is where a process before this one has stopped.
	from struct {
		segment     int    // index
		bytes       uint64 // of that segment
		transferred uint64 // of all segments
	}
	// current is the progress of the current segment.
	current struct {
		began  uint64 // transferred bytes of the operation before
		length int64  // bytes to write in all
		block  int64  // of the destination, bytes; 0 if not yet known
		done   int64  // bytes that a process before this one has written
	}
}

// run processes the segments in order.
func (x *extendedCopy) run(ctx context.Context, op *operation) (report, error) {
	op.progress.expected.Store(x.expected())
	var r report
	closeRODs, err := x.openRODs(ctx)
	defer closeRODs()
	if err != nil {
		x.stopAt(op, x.from.segment, x.from.bytes)
		r.sense, r.transferCount = senseOf(x.unit.lu, writeUsingSense, err), x.from.transferred
		return r, err
	}
	for i := x.from.segment; i < len(x.list.segments); i++ {
		s := &x.list.segments[i]
		x.begin(op, i)
		if failed := x.segment(ctx, op, s); failed != nil {
			x.stopAt(op, i, op.progress.transferred.Load()-x.current.began)
			r.sense, err = x.reportResidual(op, failed.sense(x, s)), failed.err
			break
		}
		op.progress.steps.Add(1)
	}
	if err == nil {
		x.deleteRODs(context.WithoutCancel(ctx))
	}
	r.transferCount, r.segments = op.progress.transferred.Load(), uint16(op.progress.segments.Load())
	r.held, r.heldDiscarded = x.held.bytes, x.held.discarded
	x.count(op, r.transferCount, err)
	return r, err
}

// count counts what was copied here, of n bytes in all.
func (x *extendedCopy) count(op *operation, n uint64, err error) {
	m := x.unit.manager
	c := copyCounts{&m.stats.Extended, &m.stats.ExtendedBytes, &m.stats.ExtendedMovedBytes}
	here := n - min(n, x.from.transferred)
	switch {
	case op.position != nil:
		op.countPart(c, here)
	case err == nil || n > 0: // otherwise it is refused
		op.countCopy(c, here, err != nil)
	}
}

// begin begins with the segment of index i.
func (x *extendedCopy) begin(op *operation, i int) {
	op.progress.segments.Store(uint32(i + 1)) // counts the current one (SPC-4 r37 6.24)
	var before uint64
	if i == x.from.segment {
		before = x.from.bytes
	}
	x.current.began, x.current.block = op.progress.transferred.Load()-before, 0
	x.current.done = int64(before)
}

// reportResidual sets in sense how many blocks of the destination the current segment
// did not write, if it wrote any (SPC-4 r37 5.17.7.4).
func (x *extendedCopy) reportResidual(op *operation, se *sense.Error) *sense.Error {
	written, block := int64(op.progress.transferred.Load()-x.current.began), x.current.block
	if written == 0 || block == 0 {
		return se
	}
	return se.WithInformation(uint64((x.current.length+block-1)/block - written/block))
}

// expected estimates the bytes of all segments, for the progress.
func (x *extendedCopy) expected() uint64 {
	var n uint64
	for i := range x.list.segments {
		s := &x.list.segments[i]
		if s.kind == segmentBlockOffsetToBlock {
			n += uint64(s.count)
		} else {
			n += uint64(s.count) * uint64(x.unit.lu.LogicalBlockLength())
		}
	}
	return n
}

// segment processes one segment.
func (x *extendedCopy) segment(ctx context.Context, op *operation, s *segment) *segmentError {
	if err := ctx.Err(); err != nil {
		return &segmentError{err: err}
	}
	if s.kind == segmentVerify {
		return x.verify(s)
	}
	source, failed := x.reach(s.source, fieldSegmentSource)
	if failed != nil {
		return failed
	}
	destination, failed := x.reach(s.destination, fieldSegmentDestination)
	if failed != nil {
		return failed
	}
	if destination.rod != nil {
		return &segmentError{asc: ascInvalidOperationForCopySourceOrDestination, field: fieldSegmentDestination, err: errRODWritten}
	}
	if !x.unit.manager.rules.Load().allow(x.nexus.ID.InitiatorName, source.medium(), destination.unit.name()) {
		return &segmentError{asc: ascCopyTargetNotReachable, field: fieldSegmentDestination, cscd: destination.cscd,
			err: fmt.Errorf("from %s to %s: %w", source.medium(), destination.unit.name(), errRule)}
	}
	if err := source.readable(); err != nil {
		return sourceFailed(err)
	}
	if err := destination.writable(); err != nil {
		return destinationFailed(err)
	}
	m := move{command: x, engine: x.unit.manager.engine, op: op, source: source, destination: destination}
	if s.kind == segmentBlockOffsetToBlock {
		failed = m.bytes(ctx, s)
	} else {
		failed = m.blocks(ctx, s)
	}
	if err := m.settle(ctx); err != nil && failed == nil {
		failed = destinationFailed(err)
	}
	return failed
}

// verify is segment type 07h: the logical unit must be reachable and, with TUR, ready.
func (x *extendedCopy) verify(s *segment) *segmentError {
	r, failed := x.reach(s.source, fieldSegmentSource)
	if failed != nil {
		return failed
	}
	if !s.testReady || r.rod != nil {
		return nil
	}
	if err := r.unit.lu.Ready(); err != nil {
		return sourceFailed(err)
	}
	return nil
}
