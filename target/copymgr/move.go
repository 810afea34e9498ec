package copymgr

import (
	"context"
	"errors"
	"math"
	"slices"

	"odx/blockdev"
	"odx/offload"
	"odx/target/scsi/sense"
)

// move copies the data of one segment.
type move struct {
	command             *extendedCopy
	engine              *offload.Engine
	op                  *operation
	source, destination *reached
}

// within returns the range of length bytes from byte skip after block lba, and whether
// it is inside r.
func within(r *reached, lba, skip, length uint64) (blockdev.Range, bool) {
	size := r.blocks() * uint64(r.blockLength())
	if lba > r.blocks() || size > math.MaxInt64 {
		return blockdev.Range{}, false
	}
	segment := blockdev.Range{Offset: int64(lba*uint64(r.blockLength()) + skip), Length: int64(length)}
	return segment, segment.In(int64(size))
}

// ranges checks the source and destination ranges of a segment.
func (m *move) ranges(s *segment, read, write uint64) (from, to blockdev.Range, failed *segmentError) {
	limit := uint64(m.destination.unit.limits().maxSegment)
	if m.source.rod == nil {
		limit = min(limit, uint64(m.source.unit.limits().maxSegment))
	}
	if max(read, write) > limit {
		return from, to, &segmentError{asc: sense.ASCInvalidFieldInParameterList, field: fieldSegmentCount, err: errTooLong}
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

// settle makes what the segment has written durable if the write cache is off; otherwise it
// survives this process, also after an abort. The status and the report confirm that: bytes
// for which it fails do not count.
func (m *move) settle(ctx context.Context) error {
	began := m.command.current.began
	if m.op.progress.transferred.Load() == began {
		return nil
	}
	var err error
	if lu := m.destination.unit.lu; lu.WriteThrough() {
		err = m.op.despiteHandover(ctx, lu.Volume().Flush)
	} else {
		err = m.engine.WriteOut(context.WithoutCancel(ctx))
	}
	if err != nil {
		m.op.progress.transferred.Store(began)
		m.op.whole.Store(true) // also residual data may be that of the next segment
	}
	return err
}

// bytes is segment type 0Ah: ranges at any byte.
func (m *move) bytes(ctx context.Context, s *segment) *segmentError {
	from, to, failed := m.ranges(s, uint64(s.count), uint64(s.count))
	if failed != nil {
		return failed
	}
	m.start(to.Length)
	done := min(m.command.current.done, from.Length)
	return m.copy(ctx, from.Offset+done, to.Offset+done, from.Length-done)
}

// start records the length that the segment writes.
func (m *move) start(length int64) {
	m.command.current.length, m.command.current.block = length, m.destination.blockLength()
}

// blocks is segment types 02h and 0Dh: whole blocks on both sides. If the block lengths
// differ, residual data that fills no block can remain, which CAT and PAD decide on
// (SPC-4 r37 5.17.7.2).
func (m *move) blocks(ctx context.Context, s *segment) *segmentError {
	source, destination := m.source.blockLength(), m.destination.blockLength()
	carriedSource := int64(m.command.carriedSource)
	carriedDestination := int64(len(m.command.carry)) - carriedSource
	fit := fitBlocks(s, carriedSource, carriedDestination, source, destination)
	pad, failed := m.padding(s, fit)
	if failed != nil {
		return failed
	}
	write := fit.write
	if pad {
		write += destination
	}
	from, to, failed := m.ranges(s, uint64(fit.read), uint64(write))
	if failed != nil {
		return failed
	}
	m.start(write)
	rest, failed := m.fill(ctx, from, blockdev.Range{Offset: to.Offset, Length: fit.write})
	if failed != nil {
		return failed
	}
	if s.kind == segmentBlockToBlockHold {
		if failed := m.hold(ctx, to.Offset, fit, carriedDestination, rest); failed != nil {
			return failed
		}
	}
	if pad {
		last := make([]byte, destination)
		copy(last, rest[:fit.restDestination])
		if err := m.destination.unit.bytes().WriteAt(ctx, last, to.Offset+fit.write); err != nil {
			return destinationFailed(err)
		}
		m.op.progress.transferred.Add(uint64(len(last)))
		m.op.copied.Add(int64(len(last)))
	}
	m.carryOver(s, fit, rest)
	return nil
}

// padding decides whether the last destination data is padded with zeros, or the
// segment is inexact.
func (m *move) padding(s *segment, fit fitting) (pad bool, failed *segmentError) {
	inexact := &segmentError{asc: ascUnexpectedInexactSegment, field: fieldSegmentCount, err: errInexact}
	switch {
	case s.concatenate || fit.restSource+fit.restDestination == 0:
		return false, nil
	case m.destination.pad && fit.restDestination > 0:
		if s.countDestination {
			return false, inexact // the block limit is reached
		}
		return true, nil
	case m.destination.pad || m.source.pad:
		return false, nil
	}
	return false, inexact
}

// carryOver keeps the part of rest for the next segment.
func (m *move) carryOver(s *segment, fit fitting, rest []byte) {
	m.command.carry, m.command.carriedSource = nil, 0
	switch {
	case s.concatenate:
		m.command.carry, m.command.carriedSource = rest, int(fit.restSource)
	case m.destination.pad && !m.source.pad:
		m.command.carry, m.command.carriedSource = rest[fit.restDestination:], int(fit.restSource)
	}
}

// fitting is the division of a segment's bytes into blocks.
type fitting struct {
	read  int64 // from the source, whole blocks
	write int64 // to the destination, whole blocks
	// processed is the number of bytes that become destination data, of the residual
	// source data first, then of the data read.
	processed int64
	// Residual data, in this order: destination data that was not written, and source
	// data that was not processed.
	restDestination, restSource int64
}

// fitBlocks returns the division of a segment into blocks, given the residual data
// before it.
func fitBlocks(s *segment, carriedSource, carriedDestination, sourceBlock, destinationBlock int64) fitting {
	f := fitting{processed: int64(s.count) * sourceBlock}
	if s.countDestination {
		f.write = int64(s.count) * destinationBlock
		f.processed = max(f.write-carriedDestination, 0)
	} else {
		f.write = (carriedDestination + f.processed) / destinationBlock * destinationBlock
	}
	f.read = (max(f.processed-carriedSource, 0) + sourceBlock - 1) / sourceBlock * sourceBlock
	f.restDestination = carriedDestination + f.processed - f.write
	f.restSource = carriedSource + f.read - f.processed
	return f
}

// fill writes the residual data and then the source to the destination, and returns the
// new residual data.
func (m *move) fill(ctx context.Context, from, to blockdev.Range) ([]byte, *segmentError) {
	carried := m.command.carry[:min(int64(len(m.command.carry)), to.Length)]
	rest := append([]byte(nil), m.command.carry[len(carried):]...)
	done := m.command.current.done // first the residual data, which is written in one step
	if len(carried) > 0 {
		if done == 0 {
			if err := m.destination.unit.bytes().WriteAt(ctx, carried, to.Offset); err != nil {
				return nil, destinationFailed(err)
			}
			m.op.progress.transferred.Add(uint64(len(carried)))
			m.op.copied.Add(int64(len(carried)))
		}
		to.Offset, to.Length = to.Offset+int64(len(carried)), to.Length-int64(len(carried))
	}
	done = min(max(done-int64(len(carried)), 0), to.Length)
	if failed := m.copy(ctx, from.Offset+done, to.Offset+done, to.Length-done); failed != nil {
		return nil, failed
	}
	if n := from.Length - to.Length; n > 0 {
		p := make([]byte, n)
		if err := m.source.readAt(ctx, p, from.Offset+to.Length); err != nil {
			return nil, sourceFailed(err)
		}
		rest = append(rest, p...)
	}
	return rest, nil
}

// copy moves length bytes, by mapping if both ranges are in the store and have the same
// alignment to its blocks.
func (m *move) copy(ctx context.Context, from, to, length int64) *segmentError {
	if m.overwritesSource(from, to, length) {
		m.op.manager.operations.beginWhole(m.op)
		if err := ctx.Err(); err != nil { // it was stopped before, and can still go on elsewhere
			m.op.whole.Store(false)
			return destinationFailed(err)
		}
	}
	moved := func(n int64) { m.op.progress.advance(uint64(n)) }
	var err error
	if m.source.rod != nil {
		err = m.source.rod.reader.Copy(ctx, from, m.destination.unit.bytes(), to, length, moved)
	} else {
		err = m.engine.Copy(ctx, m.source.unit.bytes(), from, m.destination.unit.bytes(), to, length, moved)
	}
	if err == nil {
		m.op.whole.Store(false)
		return nil
	}
	if m.source.rod != nil {
		return rodFailed(m.source, err)
	}
	if read, ok := errors.AsType[*offload.SourceError](err); ok {
		return sourceFailed(read.Err)
	}
	return destinationFailed(err)
}

// overwritesSource reports whether the copy may overwrite bytes of its own source, which it
// reads from a snapshot or in an order for that: another process cannot copy the rest. Of
// two views, or a view and a volume, only that they have no volume in common says no.
func (m *move) overwritesSource(from, to, length int64) bool {
	if m.source.rod != nil {
		return false
	}
	source, destination := m.source.unit.lu.Volume(), m.destination.unit.lu.Volume()
	if source == destination {
		return to < from+length && from < to+length
	}
	under := backing(destination)
	return slices.ContainsFunc(backing(source), func(v blockdev.Volume) bool { return slices.Contains(under, v) })
}

// backing returns the volumes that hold the bytes of v.
func backing(v blockdev.Volume) []blockdev.Volume {
	if view, ok := v.(offload.View); ok {
		return view.Backing()
	}
	return []blockdev.Volume{v}
}
