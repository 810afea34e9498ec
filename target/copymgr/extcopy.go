package copymgr

import (
	"context"
	"errors"
	"fmt"
	"math"

	"odx/target/scsi"
	"odx/tokens"
)

// executeExtendedCopy is EXTENDED COPY, whose parameter list parse decodes
// (SPC-4 r37 6.4, 6.5).
func (u *unit) executeExtendedCopy(ctx context.Context, t *scsi.Task, name string, parse func([]byte) (*copyList, error)) error {
	cdb := t.CDB()
	if parameterListLength(cdb) == 0 {
		return nil
	}
	if parameterListLength(cdb) > maxParameterListLength {
		sense := illegal(scsi.ASCParameterListLengthError)
		u.refuse(u.originOf(t, name), sense, errListTooLong)
		return sense
	}
	list, err := parse(t.DataOut())
	if err != nil {
		u.refuse(u.originOf(t, name), u.lu.Sense(err), errParameters)
		return err
	}
	op := &operation{
		owner: owner{u.lu, t.Nexus}, origin: u.originOf(t, name), serviceAction: cdb[1] & 0x1F,
		listID: list.listID, identified: list.identified, units: unitsBytes,
	}
	x := &extendedCopy{unit: u, nexus: t.Nexus, list: list}
	x.resolve()
	for _, r := range x.resolved {
		if r.reached != nil {
			op.uses = append(op.uses, use{r.lu, r.reached.nexus.ID})
		}
	}
	if err := u.operations.begin(op); err != nil {
		return u.refuseToBegin(op, err)
	}
	err = u.carryOut(ctx, op, plan{background: list.immediate, work: x.run})
	if err == nil && list.generateSense {
		sense := scsi.NewSense(scsi.KeyCompleted, ascExtendedCopyInformation)
		sense.CommandSpecific, sense.HasCommandSpecific = uint64(len(list.segments)), true
		return sense
	}
	return err
}

func (u *unit) executeExtendedCopyLID1(ctx context.Context, t *scsi.Task) error {
	return u.executeExtendedCopy(ctx, t, nameExtendedCopyLID1, parseLID1)
}

func (u *unit) executeExtendedCopyLID4(ctx context.Context, t *scsi.Task) error {
	return u.executeExtendedCopy(ctx, t, nameExtendedCopyLID4, parseLID4)
}

var (
	errParameters = errors.New("the parameter list is not valid")
	errInexact    = errors.New("the segment does not fill whole blocks")
	errOutside    = errors.New("the segment is not inside the logical unit")
	errTooLong    = errors.New("the segment is longer than MAXIMUM SEGMENT LENGTH")
)

// extendedCopy is an EXTENDED COPY under way.
type extendedCopy struct {
	*unit
	nexus *scsi.Nexus
	list  *copyList
	// resolved are the logical units by CSCD id.
	resolved map[uint16]resolution
	// carry is what a segment with CAT has left for the next one: less than a
	// block.
	carry []byte
	held  []byte
}

// run processes the segments in their order.
func (x *extendedCopy) run(ctx context.Context, op *operation) (report, error) {
	op.progress.expected.Store(x.expected())
	var r report
	var err error
	for i := range x.list.segments {
		s := &x.list.segments[i]
		if failed := x.segment(ctx, op, s); failed != nil {
			r.sense, err = failed.sense(x, s), failed.err
			break
		}
		op.progress.segments.Add(1)
		op.progress.steps.Add(1)
	}
	r.transferCount, r.segments = op.progress.transferred.Load(), uint16(op.progress.segments.Load())
	r.held = x.held
	x.countCopy(&x.stats.Extended, &x.stats.ExtendedBytes, r.transferCount, err != nil)
	return r, err
}

// expected guesses the bytes of all segments, for the estimate of progress.
func (x *extendedCopy) expected() uint64 {
	var n uint64
	for i := range x.list.segments {
		s := &x.list.segments[i]
		if s.kind == segmentBlockOffsetToBlock {
			n += uint64(s.count)
		} else {
			n += uint64(s.count) * uint64(x.lu.LogicalBlockLength())
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
	if !x.rules.allow(x.nexus.ID.InitiatorName, source.volume, destination.volume) {
		return &segmentError{asc: ascCopyTargetNotReachable, field: fieldSegmentDestination,
			err: fmt.Errorf("from %s to %s: %w", source.volume, destination.volume, errRule)}
	}
	if err := source.readable(); err != nil {
		return sourceFailed(err)
	}
	if err := destination.writable(); err != nil {
		return destinationFailed(err)
	}
	m := move{extendedCopy: x, op: op, source: source, destination: destination}
	if s.kind == segmentBlockOffsetToBlock {
		return m.bytes(ctx, s)
	}
	return m.blocks(ctx, s)
}

// verify is segment type 07h: the logical unit can be reached and, with TUR, is
// ready.
func (x *extendedCopy) verify(s *segment) *segmentError {
	r, failed := x.reach(s.source, fieldSegmentSource)
	if failed != nil {
		return failed
	}
	if !s.testReady {
		return nil
	}
	if err := r.lu.Ready(); err != nil {
		return sourceFailed(err)
	}
	return nil
}

// move is the data of one segment on its way.
type move struct {
	*extendedCopy
	op                  *operation
	source, destination *reached
}

// extent is a range of a logical unit in bytes.
type extent struct{ offset, length int64 }

// within returns the range of length bytes from byte skip behind block lba.
func within(r *reached, lba, skip, length uint64) (extent, bool) {
	size := r.lu.Blocks() * uint64(r.lu.LogicalBlockLength())
	if lba > r.lu.Blocks() {
		return extent{}, false
	}
	first := lba*uint64(r.lu.LogicalBlockLength()) + skip
	if first > size || length > size-first || size > math.MaxInt64 {
		return extent{}, false
	}
	return extent{int64(first), int64(length)}, true
}

// extents checks the ranges of a segment.
func (m *move) extents(s *segment, read, write uint64) (from, to extent, failed *segmentError) {
	limit := uint64(min(m.source.limits.maxSegment, m.destination.limits.maxSegment))
	if max(read, write) > limit {
		return from, to, &segmentError{asc: scsi.ASCInvalidFieldInParameterList, field: fieldSegmentCount, err: errTooLong}
	}
	from, ok := within(m.source, s.sourceLBA, uint64(s.sourceOffset), read)
	if !ok {
		return from, to, &segmentError{asc: ascCopyTargetNotReachable, field: fieldSegmentSourceLBA, err: errOutside}
	}
	if to, ok = within(m.destination, s.destinationLBA, uint64(s.destinationOffset), write); !ok {
		return from, to, &segmentError{asc: ascCopyTargetNotReachable, field: fieldSegmentDestLBA, err: errOutside}
	}
	return from, to, nil
}

// bytes is segment type 0Ah: from and to any byte.
func (m *move) bytes(ctx context.Context, s *segment) *segmentError {
	from, to, failed := m.extents(s, uint64(s.count), uint64(s.count))
	if failed != nil {
		return failed
	}
	return m.copy(ctx, from.offset, to.offset, from.length)
}

// blocks is segment types 02h and 0Dh: whole blocks on both sides. Where the
// blocks of the two differ, data can remain that fills no block; CAT and PAD say
// what becomes of it (SPC-4 r37 table 121).
func (m *move) blocks(ctx context.Context, s *segment) *segmentError {
	fit := fitBlocks(s, int64(len(m.carry)), int64(m.source.lu.LogicalBlockLength()), int64(m.destination.lu.LogicalBlockLength()))
	pad := fit.rest > 0 && !s.concatenate && !s.countDestination && m.destination.pad
	if fit.rest > 0 && !s.concatenate && !pad && !m.source.pad {
		return &segmentError{asc: ascUnexpectedInexactSegment, field: fieldSegmentCount, err: errInexact}
	}
	write := fit.write
	if pad {
		write += int64(m.destination.lu.LogicalBlockLength())
	}
	from, to, failed := m.extents(s, uint64(fit.read), uint64(write))
	if failed != nil {
		return failed
	}
	rest, failed := m.fill(ctx, from, extent{to.offset, fit.write})
	if failed != nil {
		return failed
	}
	m.carry = nil
	switch {
	case pad:
		last := make([]byte, m.destination.lu.LogicalBlockLength())
		copy(last, rest)
		if err := m.destination.bytes().WriteAt(ctx, last, to.offset+fit.write); err != nil {
			return destinationFailed(err)
		}
		m.op.progress.transferred.Add(uint64(len(last)))
	case s.concatenate:
		m.carry = rest
	}
	if s.kind == segmentBlockToBlockHold {
		return m.hold(ctx, extent{to.offset, write})
	}
	return nil
}

// fitting is how the bytes of a segment fall into blocks.
type fitting struct {
	read  int64 // from the source, whole blocks
	write int64 // to the destination, whole blocks
	rest  int64 // what is read, or was carried, and not written
}

func fitBlocks(s *segment, carried, sourceBlock, destinationBlock int64) fitting {
	f := fitting{read: int64(s.count) * sourceBlock}
	if s.countDestination {
		f.write = int64(s.count) * destinationBlock
		f.read = (max(f.write-carried, 0) + sourceBlock - 1) / sourceBlock * sourceBlock
	} else {
		f.write = (carried + f.read) / destinationBlock * destinationBlock
	}
	f.rest = carried + f.read - f.write
	return f
}

// fill writes what was carried and then the source to the destination, and
// returns what is left over.
func (m *move) fill(ctx context.Context, from, to extent) ([]byte, *segmentError) {
	carried := m.carry[:min(int64(len(m.carry)), to.length)]
	rest := append([]byte(nil), m.carry[len(carried):]...)
	if len(carried) > 0 {
		if err := m.destination.bytes().WriteAt(ctx, carried, to.offset); err != nil {
			return nil, destinationFailed(err)
		}
		m.op.progress.transferred.Add(uint64(len(carried)))
		to.offset, to.length = to.offset+int64(len(carried)), to.length-int64(len(carried))
	}
	if failed := m.copy(ctx, from.offset, to.offset, to.length); failed != nil {
		return nil, failed
	}
	if n := from.length - to.length; n > 0 {
		p := make([]byte, n)
		if err := m.source.bytes().ReadAt(ctx, p, from.offset+to.length); err != nil {
			return nil, sourceFailed(err)
		}
		rest = append(rest, p...)
	}
	return rest, nil
}

// copy moves length bytes: by mapping where both ends are in the store and lie
// alike to its blocks.
func (m *move) copy(ctx context.Context, from, to, length int64) *segmentError {
	err := m.tokens.Copy(ctx, m.source.bytes(), from, m.destination.bytes(), to, length, func(n int64) {
		m.op.progress.advance(uint64(n))
	})
	if err == nil && length > 0 && m.destination.lu.WriteThrough() {
		err = m.destination.lu.Volume().Flush(ctx)
	}
	if err == nil {
		return nil
	}
	if read, ok := errors.AsType[*tokens.SourceError](err); ok {
		return sourceFailed(read.Err)
	}
	return destinationFailed(err)
}

// hold keeps the data of a segment of type 0Dh for RECEIVE COPY DATA, as far as
// there is room.
func (m *move) hold(ctx context.Context, written extent) *segmentError {
	p := make([]byte, min(written.length, int64(maxHeldData-len(m.held))))
	if err := m.destination.bytes().ReadAt(ctx, p, written.offset); err != nil {
		return destinationFailed(err)
	}
	m.held = append(m.held, p...)
	return nil
}
