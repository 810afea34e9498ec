package copymgr

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/offload"
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
	ranges []blockdev.Range
	blocks uint64 // of all ranges
	o      tokens.WriteOptions
}

// planWriteUsing checks a WRITE USING TOKEN.
func (u *logicalUnit) planWriteUsing(t *scsi.Task) (plan, error) {
	list, err := parseWriteUsing(t.DataOut(), maxRangeDescriptors)
	if err != nil {
		return plan{}, err
	}
	if err := t.Nexus.WriteProtected(u.lu); err != nil {
		return plan{}, err
	}
	w := &tokenWrite{unit: u}
	w.o.Requester = tokens.Requester{Initiator: t.Nexus.ID.InitiatorName}
	if w.blocks, err = checkRanges(list.ranges, u.rangeLimits()); err != nil {
		return plan{}, err
	}
	w.ranges = byteRanges(list.ranges, u.lu.LogicalBlockLength())
	if err := w.open(list.token, t.Nexus, list.offsetIntoROD); err != nil {
		return plan{}, err
	}
	if list.deleteToken {
		w.o.Completion = tokens.DeleteToken
	}
	p := plan{background: list.immediate, work: w.writeForeground}
	if list.immediate {
		p.work = w.writeBackground
	}
	return p, nil
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
	if !w.unit.manager.rules.Load().allow(by.ID.InitiatorName, info.Creator.Volume, w.unit.volume) {
		return fmt.Errorf("from %s to %s: %w", info.Creator.Volume, w.unit.volume, errRule)
	}
	var ok bool
	if w.offset, ok = byteOffset(offsetIntoROD, w.unit.lu.LogicalBlockLength()); !ok || w.offset >= info.Length {
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
	n, err := w.token.OffloadWrite(ctx, w.offset, w.destination(), w.ranges, o)
	return w.result(op, n, err)
}

func (w *tokenWrite) destination() offload.Destination {
	return offload.Destination{Volume: w.unit.lu.Volume(), BlockLength: w.unit.lu.LogicalBlockLength()}
}

// flush makes written data durable if the write cache is off; otherwise it survives
// this process. A report confirms that. ctx is that of the operation: the time limit of
// the command is for moving data.
func (w *tokenWrite) flush(ctx context.Context) error {
	if w.unit.lu.WriteThrough() {
		return w.unit.lu.Volume().Flush(ctx)
	}
	return w.unit.manager.engine.WriteOut(context.WithoutCancel(ctx))
}

// result returns the report of a write of n bytes, which are durable if the write cache
// is off.
func (w *tokenWrite) result(op *operation, n int64, err error) (report, error) {
	r := report{transferCount: uint64(n) / uint64(w.unit.lu.LogicalBlockLength())}
	if n > 0 {
		if lost := w.flush(op.ctx); lost != nil {
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
		m := w.unit.manager
		op.countCopy(copyCounts{&m.stats.Written, &m.stats.WrittenBytes, &m.stats.WrittenMovedBytes}, uint64(n), partial)
	}
	return r, err
}
