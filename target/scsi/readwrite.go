package scsi

import (
	"context"

	"odx/target/scsi/sense"
)

// prepareRead checks READ(6), (10), (12) and (16): SBC-3 5.11 to 5.13.
func prepareRead(t *Task) error {
	if err := t.checkTransfer(); err != nil {
		return err
	}
	if t.enableStream(); t.stream.on {
		t.startStream(t.ExpectedIn)
	}
	return nil
}

func executeRead(ctx context.Context, t *Task) error {
	lu := t.LU
	if forcesUnitAccess(t.CDB()) && t.stream.done == 0 {
		// FUA reads from the medium, so the cache is flushed first.
		if err := lu.Volume().Flush(ctx); err != nil {
			return err
		}
	}
	offset, length := t.piece()
	if length == 0 {
		return nil
	}
	if err := lu.readAt(ctx, t.AllocDataIn(length), offset); err != nil {
		return err
	}
	t.moved(length)
	return nil
}

// prepareWrite checks WRITE(6), (10), (12) and (16): SBC-3 5.33 to 5.35.
func prepareWrite(t *Task) error {
	if err := t.checkTransfer(); err != nil {
		return err
	}
	t.Wanted = t.TL
	if t.enableStream(); t.stream.on {
		t.startStream(t.ExpectedOut)
	}
	return nil
}

func executeWrite(ctx context.Context, t *Task) error {
	length, err := t.writeDataOut(ctx)
	if err != nil {
		return err
	}
	if t.moved(length); t.stream.more {
		return nil
	}
	return t.LU.finishWrite(ctx, t.CDB())
}

// writeDataOut writes the blocks of Data-Out, or of the current piece, and returns the
// length. If the initiator offers fewer blocks than the CDB requests, these are written
// and the residual count has the rest (FCP-4 9.5.8; RFC 7143 11.4.5 leaves it open).
// With a partial block, nothing is written.
func (t *Task) writeDataOut(ctx context.Context) (length int, err error) {
	data, block := t.DataOut(), t.LU.LogicalBlockLength()
	if t.stream.on {
		if int(t.ExpectedOut)&(block-1) != 0 && t.ExpectedOut < t.TL {
			return 0, errShortDataOut
		}
		if err := t.checkPiece(); err != nil {
			return 0, err
		}
		data = data[:min(len(data), int(t.stream.end-t.stream.done))]
	} else {
		data = data[:min(len(data), int(t.TL))]
		t.TL = uint32(len(data))
	}
	if len(data)&(block-1) != 0 {
		return 0, errShortDataOut
	}
	if len(data) == 0 {
		return 0, nil
	}
	offset, _ := t.piece()
	return len(data), t.LU.Volume().WriteAt(ctx, data, offset)
}

// prepareCompareAndWrite checks COMPARE AND WRITE (SBC-3 5.2). Data-Out holds
// the blocks to compare with, then the blocks to write.
func prepareCompareAndWrite(t *Task) error {
	cdb, lu := t.CDB(), t.LU
	if cdb[1]&0xE0 != 0 {
		return sense.InvalidFieldInCDB(1, 7)
	}
	r := rangeOf(cdb)
	r.blocks = uint64(cdb[13])
	if err := lu.checkRange(r.lba, r.blocks); err != nil {
		return err
	}
	if r.blocks > maximumCompareAndWrite {
		return sense.InvalidFieldInCDB(13, 7)
	}
	t.Offset = r.lba << lu.blockShift
	t.TL = uint32(r.blocks << lu.blockShift)
	t.Wanted = 2 * t.TL
	t.scratch = atomicScratch(int(t.TL))
	if t.ExpectedOut > t.Wanted {
		// The two halves can be separated only if the lengths agree.
		return sense.InvalidFieldInCDB(13, 7)
	}
	return nil
}

func executeCompareAndWrite(ctx context.Context, t *Task) error {
	lu := t.LU
	if t.TL == 0 {
		return nil
	}
	// An aborted command that is still under way can find another volume than admit did.
	conditional := lu.medium().conditional
	if conditional == nil {
		return errNotOffered()
	}
	data := t.DataOut()
	mismatch, err := conditional.CompareAndWrite(ctx, data[:t.TL], data[t.TL:2*t.TL], int64(t.Offset))
	if err != nil {
		return err
	}
	if mismatch >= 0 {
		return sense.New(sense.KeyMiscompare, sense.ASCMiscompareDuringVerify).WithInformation(uint64(mismatch))
	}
	t.moved(int(t.TL))
	return lu.finishWrite(ctx, t.CDB())
}
