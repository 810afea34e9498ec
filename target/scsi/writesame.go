package scsi

import (
	"context"

	"odx/target/scsi/sense"
)

const opWriteSame16 = 0x93

// Bits of byte 1 of WRITE SAME (SBC-3 5.43, 5.44).
const (
	writeSameAnchor = 0x10
	writeSameUnmap  = 0x08
	writeSameNDOB   = 0x01 // WRITE SAME(16) only: no Data-Out buffer, write zeros
)

// writeSameChunk bounds the memory in bytes of WRITE SAME with data other than zeros.
const writeSameChunk = 1 << 20

// hasNDOB reports whether a WRITE SAME has no Data-Out.
func hasNDOB(cdb []byte) bool {
	return cdb[0] == opWriteSame16 && cdb[1]&writeSameNDOB != 0
}

// prepareWriteSame checks WRITE SAME(10) and (16). A length of zero, "to the last
// block", is refused, as WSNZ in the Block Limits page reports: it would usually exceed
// the limit.
func prepareWriteSame(t *Task) error {
	cdb, lu := t.CDB(), t.LU
	if err := checkWriteSameFlags(cdb, lu); err != nil {
		return err
	}
	r := rangeOf(cdb)
	if r.blocks == 0 {
		return sense.InvalidFieldInCDB(r.lengthField, 7)
	}
	if err := lu.checkRange(r.lba, r.blocks); err != nil {
		return err
	}
	if r.blocks > maximumWriteSame>>lu.blockShift {
		return sense.InvalidFieldInCDB(r.lengthField, 7)
	}
	t.Offset = r.lba << lu.blockShift
	t.TL = uint32(r.blocks << lu.blockShift)
	if !hasNDOB(cdb) {
		t.Wanted = uint32(lu.LogicalBlockLength())
	}
	if !hasNDOB(cdb) || !lu.config.Thin {
		t.scratch = min(int(t.TL), writeSameChunk)
	}
	if lu.config.Thin && (hasNDOB(cdb) || cdb[1]&writeSameUnmap != 0) {
		t.kind = KindUnmap
	}
	if t.ExpectedOut > t.Wanted {
		// Data-Out is one logical block: an initiator that sends more assumes another
		// block length.
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
	}
	return nil
}

// checkWriteSameFlags checks byte 1.
func checkWriteSameFlags(cdb []byte, lu *LogicalUnit) error {
	reserved := byte(0x07)
	if cdb[0] == opWriteSame16 {
		reserved = 0x06
	}
	switch {
	case cdb[1]&0xE0 != 0: // WRPROTECT
		return sense.InvalidFieldInCDB(1, 7)
	case cdb[1]&writeSameAnchor != 0: // ANC_SUP is zero
		return sense.InvalidFieldInCDB(1, 4)
	case cdb[1]&writeSameUnmap != 0 && !lu.config.Thin:
		return sense.InvalidFieldInCDB(1, 3)
	case cdb[1]&reserved != 0: // PBDATA, LBDATA of older standards
		return sense.InvalidFieldInCDB(1, 2)
	}
	return nil
}

func executeWriteSame(ctx context.Context, t *Task) error {
	lu := t.LU
	var block []byte
	if !hasNDOB(t.CDB()) {
		block = t.DataOut()[:lu.LogicalBlockLength()]
	}
	var err error
	if lu.config.Thin && isZero(block) {
		err = lu.Volume().Unmap(ctx, int64(t.Offset), int64(t.TL))
	} else {
		// With LBPRZ set, blocks with data other than zeros must hold the data even if
		// UNMAP requests deallocation (SBC-3 5.43).
		err = t.writePattern(ctx, block)
	}
	if err != nil {
		return err
	}
	t.moved(int(t.TL))
	if lu.WriteThrough() { // WRITE SAME has no FUA
		return lu.Volume().Flush(ctx)
	}
	return nil
}

// writePattern writes block (nil: zeros) to every block of the range.
func (t *Task) writePattern(ctx context.Context, block []byte) error {
	buf := t.pool.Get(min(int(t.TL), writeSameChunk))
	defer t.pool.Put(buf)
	if block == nil {
		clear(buf.Bytes)
	} else {
		for n := copy(buf.Bytes, block); n < len(buf.Bytes); n *= 2 {
			copy(buf.Bytes[n:], buf.Bytes[:n])
		}
	}
	for done := 0; done < int(t.TL); {
		chunk := buf.Bytes[:min(len(buf.Bytes), int(t.TL)-done)]
		if err := t.LU.Volume().WriteAt(ctx, chunk, int64(t.Offset)+int64(done)); err != nil {
			return err
		}
		done += len(chunk)
	}
	return nil
}

// isZero reports whether p is all zeros, or nil.
func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
