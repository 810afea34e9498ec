package scsi

import "context"

// prepareRead checks READ(6), (10), (12) and (16): SBC-3 5.11 to 5.13.
func prepareRead(t *Task) error { return t.checkTransfer() }

func executeRead(ctx context.Context, t *Task) error {
	lu := t.LU
	if forcesUnitAccess(t.CDB()) {
		// FUA reads from the medium, so the cache has to be there first.
		if err := lu.volume.Flush(ctx); err != nil {
			return err
		}
	}
	if t.TL == 0 {
		return nil
	}
	return lu.readAt(ctx, t.AllocDataIn(int(t.TL)), int64(t.Offset))
}

// prepareWrite checks WRITE(6), (10), (12) and (16): SBC-3 5.33 to 5.35.
func prepareWrite(t *Task) error {
	if err := t.checkTransfer(); err != nil {
		return err
	}
	t.Wanted = t.TL
	return nil
}

func executeWrite(ctx context.Context, t *Task) error {
	if err := t.writeDataOut(ctx); err != nil {
		return err
	}
	return t.LU.finishWrite(ctx, t.CDB())
}

// writeDataOut writes the blocks that the initiator sent. When it offered fewer
// than the CDB names, those are written and the residual count tells of the rest
// (FCP-4 9.5.8; RFC 7143 11.4.5 leaves it open). Part of a block is never
// written: nothing is, then.
func (t *Task) writeDataOut(ctx context.Context) error {
	data := t.DataOut()
	data = data[:min(len(data), int(t.TL))]
	if len(data)&(t.LU.LogicalBlockLength()-1) != 0 {
		return errShortDataOut
	}
	t.TL = uint32(len(data))
	if t.TL == 0 {
		return nil
	}
	return t.LU.volume.WriteAt(ctx, data, int64(t.Offset))
}

// prepareCompareAndWrite checks COMPARE AND WRITE (SBC-3 5.2). Data-Out holds
// the blocks to compare with, then the blocks to write.
func prepareCompareAndWrite(t *Task) error {
	cdb, lu := t.CDB(), t.LU
	if cdb[1]&0xE0 != 0 {
		return InvalidFieldInCDB(1, 7)
	}
	r := rangeOf(cdb)
	r.blocks = uint64(cdb[13])
	if err := lu.checkRange(r.lba, r.blocks); err != nil {
		return err
	}
	if r.blocks > maximumCompareAndWrite {
		return InvalidFieldInCDB(13, 7)
	}
	t.Offset = r.lba << lu.blockShift
	t.TL = uint32(r.blocks << lu.blockShift)
	t.Wanted = 2 * t.TL
	if t.ExpectedOut > t.Wanted {
		// The two halves can only be told apart when the lengths agree.
		return InvalidFieldInCDB(13, 7)
	}
	return nil
}

func executeCompareAndWrite(ctx context.Context, t *Task) error {
	lu := t.LU
	if t.TL == 0 {
		return nil
	}
	data := t.DataOut()
	mismatch, err := lu.conditional.CompareAndWrite(ctx, data[:t.TL], data[t.TL:2*t.TL], int64(t.Offset))
	if err != nil {
		return err
	}
	if mismatch >= 0 {
		return NewSense(KeyMiscompare, ASCMiscompareDuringVerify).WithInformation(uint64(mismatch))
	}
	return lu.finishWrite(ctx, t.CDB())
}
