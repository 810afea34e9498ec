package scsi

import (
	"bytes"
	"context"
)

// The values of the BYTCHK field (SBC-3 5.29).
const (
	bytchkMedium = 0 // read the medium, compare nothing
	bytchkAll    = 1 // Data-Out holds every block
	bytchkOne    = 3 // Data-Out holds one block, compared with each
)

// verifyChunk bounds the memory that a comparison takes, in bytes. It is a
// multiple of every logical block length.
const verifyChunk = 256 << 10

func bytchk(cdb []byte) byte { return cdb[1] >> 1 & 3 }

// prepareVerify checks VERIFY(10), (12) and (16): SBC-3 5.29 to 5.31.
func prepareVerify(t *Task) error {
	if err := t.checkTransfer(); err != nil {
		return err
	}
	switch bytchk(t.CDB()) {
	case bytchkMedium:
	case bytchkAll:
		t.Wanted = t.TL
	case bytchkOne:
		t.Wanted = min(t.TL, uint32(t.LU.LogicalBlockLength()))
	default:
		return InvalidFieldInCDB(1, 2)
	}
	return nil
}

func executeVerify(ctx context.Context, t *Task) error {
	return t.verifyMedium(ctx, t.DataOut())
}

// prepareWriteAndVerify checks WRITE AND VERIFY(10), (12) and (16): SBC-3 5.37
// to 5.39.
func prepareWriteAndVerify(t *Task) error {
	if bytchk(t.CDB()) > bytchkAll {
		return InvalidFieldInCDB(1, 2)
	}
	return prepareWrite(t)
}

func executeWriteAndVerify(ctx context.Context, t *Task) error {
	if err := t.writeDataOut(ctx); err != nil {
		return err
	}
	if err := t.LU.volume.Flush(ctx); err != nil {
		return err
	}
	return t.verifyMedium(ctx, t.DataOut())
}

// verifyMedium reads the range of the command and compares it with want as
// BYTCHK says.
func (t *Task) verifyMedium(ctx context.Context, want []byte) error {
	blockLength := t.LU.LogicalBlockLength()
	return t.readThrough(ctx, func(chunk []byte, done int) error {
		equal := true
		switch bytchk(t.CDB()) {
		case bytchkAll:
			equal = bytes.Equal(chunk, want[done:done+len(chunk)])
		case bytchkOne:
			for b := 0; b < len(chunk) && equal; b += blockLength {
				equal = bytes.Equal(chunk[b:b+blockLength], want[:blockLength])
			}
		}
		if !equal {
			return NewSense(KeyMiscompare, ASCMiscompareDuringVerify)
		}
		return nil
	})
}

// readThrough reads the range of the command in chunks of little memory, and has
// fn look at each; done is how many bytes came before it.
func (t *Task) readThrough(ctx context.Context, fn func(chunk []byte, done int) error) error {
	buf := t.pool.Get(min(int(t.TL), verifyChunk))
	defer t.pool.Put(buf)
	for done := 0; done < int(t.TL); {
		chunk := buf.Bytes[:min(len(buf.Bytes), int(t.TL)-done)]
		if err := t.LU.readAt(ctx, chunk, int64(t.Offset)+int64(done)); err != nil {
			return err
		}
		if err := fn(chunk, done); err != nil {
			return err
		}
		done += len(chunk)
	}
	return nil
}
