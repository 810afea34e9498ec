package scsi

import (
	"bytes"
	"context"

	"odx/target/scsi/sense"
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
	t.scratch = min(int(t.TL), verifyChunk)
	switch bytchk(t.CDB()) {
	case bytchkMedium:
	case bytchkAll:
		t.Wanted = t.TL
		if t.enableStream(); t.stream.on {
			t.startStream(t.ExpectedOut)
		}
	case bytchkOne:
		t.Wanted = min(t.TL, uint32(t.LU.LogicalBlockLength()))
	default:
		return sense.InvalidFieldInCDB(1, 2)
	}
	return nil
}

func executeVerify(ctx context.Context, t *Task) error {
	if !t.stream.on {
		if err := t.verifyMedium(ctx, t.DataOut(), int(t.TL)); err != nil {
			return err
		}
		t.moved(int(t.TL))
		return nil
	}
	if err := t.checkPiece(); err != nil {
		return err
	}
	length := min(len(t.DataOut()), int(t.stream.end-t.stream.done))
	if err := t.verifyMedium(ctx, t.DataOut(), length); err != nil {
		return err
	}
	t.moved(length)
	return nil
}

// prepareWriteAndVerify checks WRITE AND VERIFY(10), (12) and (16): SBC-3 5.37
// to 5.39.
func prepareWriteAndVerify(t *Task) error {
	if bytchk(t.CDB()) > bytchkAll {
		return sense.InvalidFieldInCDB(1, 2)
	}
	if err := prepareWrite(t); err != nil {
		return err
	}
	t.scratch = min(int(t.TL), verifyChunk)
	return nil
}

func executeWriteAndVerify(ctx context.Context, t *Task) error {
	length, err := t.writeDataOut(ctx)
	if err != nil {
		return err
	}
	if err := t.LU.Volume().Flush(ctx); err != nil {
		return err
	}
	if err := t.verifyMedium(ctx, t.DataOut(), length); err != nil {
		return err
	}
	t.moved(length)
	return nil
}

// verifyMedium reads length bytes of the range of the command, beginning with its
// current piece, and compares them with want as BYTCHK requires.
func (t *Task) verifyMedium(ctx context.Context, want []byte, length int) error {
	blockLength := t.LU.LogicalBlockLength()
	return t.readThrough(ctx, length, func(chunk []byte, done int) error {
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
			return sense.New(sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
		}
		return nil
	})
}

// readThrough reads length bytes of the range of the command, beginning with its
// current piece, in chunks, and calls fn with each; done is the number of bytes before
// the chunk.
func (t *Task) readThrough(ctx context.Context, length int, fn func(chunk []byte, done int) error) error {
	offset, _ := t.piece()
	buf := t.pool.Get(min(length, verifyChunk))
	defer t.pool.Put(buf)
	for done := 0; done < length; {
		chunk := buf.Bytes[:min(len(buf.Bytes), length-done)]
		if err := t.LU.readAt(ctx, chunk, offset+int64(done)); err != nil {
			return err
		}
		if err := fn(chunk, done); err != nil {
			return err
		}
		done += len(chunk)
	}
	return nil
}
