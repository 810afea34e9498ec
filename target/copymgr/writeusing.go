package copymgr

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/offload"
	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// executeWriteUsingToken is WRITE USING TOKEN (SBC-3 5.46).
func (u *logicalUnit) executeWriteUsingToken(ctx context.Context, t *scsi.Task) error {
	return u.tokenCommand(ctx, t, nameWriteUsingToken, writeUsingSense, u.planWriteUsing)
}

// tokenWrite is a WRITE USING TOKEN whose parameters are valid.
type tokenWrite struct {
	unit   *logicalUnit
	token  *tokens.Handle
	offset int64 // into the ROD, bytes
	length int64 // of the ROD, bytes; 0: without end
	ranges []blockdev.Range
	blocks uint64 // of all ranges
	done   uint64 // blocks that a process before this one has written
	o      tokens.WriteOptions
}

// planWriteUsing checks a WRITE USING TOKEN.
func (u *logicalUnit) planWriteUsing(by *scsi.Nexus, parameters []byte) (plan, error) {
	w := &tokenWrite{unit: u}
	list, err := w.prepare(by, parameters)
	if err != nil {
		return plan{}, err
	}
	p := plan{background: list.immediate, work: w.writeForeground}
	if list.immediate {
		p.work = w.writeBackground
	}
	return p, nil
}

// prepare checks the parameter list of a nexus.
func (w *tokenWrite) prepare(by *scsi.Nexus, parameters []byte) (*writeUsingList, error) {
	list, err := parseWriteUsing(parameters, maxRangeDescriptors)
	if err != nil {
		return nil, err
	}
	u := w.unit
	if err := by.WriteProtected(u.lu); err != nil {
		return nil, err
	}
	w.o.Requester = tokens.Requester{Initiator: by.ID.InitiatorName}
	if w.blocks, err = checkRanges(list.ranges, u.rangeLimits()); err != nil {
		return nil, err
	}
	w.ranges = byteRanges(list.ranges, u.lu.LogicalBlockLength())
	if err := w.open(list.token, by, list.offsetIntoROD); err != nil {
		return nil, err
	}
	if list.deleteToken {
		w.o.Completion = tokens.DeleteToken
	}
	return list, nil
}

// open looks up the token, checks whether its data may be copied here, and sets the
// start offset.
func (w *tokenWrite) open(t *tokens.Token, by *scsi.Nexus, offsetIntoROD uint64) error {
	var err error
	if w.token, err = w.unit.manager.tokens.Resolve(t); err != nil {
		return err
	}
	info := w.token.Info()
	if info.Type == tokens.RODTypeBlockDeviceZero {
		return nil // zeros have no end, so the offset has no effect
	}
	if !w.unit.manager.rules.Load().allow(by.ID.InitiatorName, info.Creator.Volume, w.unit.name()) {
		return fmt.Errorf("from %s to %s: %w", info.Creator.Volume, w.unit.name(), errRule)
	}
	w.length = info.Length
	var ok bool
	if w.offset, ok = byteOffset(offsetIntoROD, w.unit.lu.LogicalBlockLength()); ok && info.Server != "" {
		return nil // the server that made the token knows where it ends
	}
	if !ok || w.offset >= info.Length {
		return fmt.Errorf("%w: %d blocks, token of %d bytes", tokens.ErrOffset, offsetIntoROD, info.Length)
	}
	return nil
}

// writeForeground writes until the time limit of a foreground command.
func (w *tokenWrite) writeForeground(ctx context.Context, op *operation) (report, error) {
	op.progress.expected.Store(w.blocks)
	n, err := w.token.OffloadWrite(ctx, w.offset, w.destination(), w.ranges, w.o)
	return w.result(op, n, err)
}

// writeBackground writes to the end, in steps that update the progress.
func (w *tokenWrite) writeBackground(ctx context.Context, op *operation) (report, error) {
	op.progress.expected.Store(w.blocks)
	blockLength := uint64(w.unit.lu.LogicalBlockLength())
	var bytes uint64
	o := w.o
	o.Moved = func(n int64) {
		before := bytes / blockLength
		bytes += uint64(n)
		op.progress.advance(bytes/blockLength - before)
	}
	offset, ranges := w.rest()
	n, err := w.token.OffloadWrite(ctx, offset, w.destination(), ranges, o)
	return w.result(op, n, err)
}

// rest returns what is left to write, and where in the ROD that begins.
func (w *tokenWrite) rest() (offset int64, ranges []blockdev.Range) {
	done := int64(w.done) * int64(w.unit.lu.LogicalBlockLength())
	offset = w.offset + done
	if w.length > 0 && offset >= w.length {
		return w.offset, nil // the token has no more; there is only the end left
	}
	for _, r := range w.ranges {
		skip := min(done, r.Length)
		done -= skip
		if r.Length > skip {
			ranges = append(ranges, blockdev.Range{Offset: r.Offset + skip, Length: r.Length - skip})
		}
	}
	return offset, ranges
}

func (w *tokenWrite) destination() offload.Destination {
	return offload.Destination{Volume: w.unit.lu.Volume(), BlockLength: w.unit.lu.LogicalBlockLength()}
}

// flush makes written data durable if the write cache is off; otherwise it survives
// this process. A report confirms that. It uses the context of the operation: the time
// limit of the command is for moving data.
func (w *tokenWrite) flush(op *operation) error {
	if w.unit.lu.WriteThrough() {
		return op.despiteHandover(op.ctx, w.unit.lu.Volume().Flush)
	}
	return w.unit.manager.engine.WriteOut(context.WithoutCancel(op.ctx))
}

// result returns the report after a write of n more bytes. All that were written are
// durable if the write cache is off. A write that goes on in another process is durable when
// that reports its end.
func (w *tokenWrite) result(op *operation, n int64, err error) (report, error) {
	m := w.unit.manager
	counts := copyCounts{&m.stats.Written, &m.stats.WrittenBytes, &m.stats.WrittenMovedBytes}
	r := report{transferCount: w.done + uint64(n)/uint64(w.unit.lu.LogicalBlockLength())}
	if err != nil && op.handedOver() {
		op.countPart(counts, uint64(n))
		op.position = &handover.RunningCopy{TransferCount: r.transferCount}
		return r, err
	}
	if r.transferCount > 0 {
		if lost := w.flush(op); lost != nil {
			r.transferCount, err = 0, lost
		}
	}
	op.progress.steps.Add(1)
	partial := r.transferCount < w.blocks
	switch {
	case err != nil && r.transferCount == 0:
		r.sense = senseOf(w.unit.lu, writeUsingSense, err)
		return r, err
	case err != nil || partial:
		// The initiator continues from the count, and gets the error, if any, again.
		r.sense = underrun(r.transferCount)
	}
	if w.blocks > 0 {
		op.countCopy(counts, uint64(n), partial)
	}
	return r, err
}
