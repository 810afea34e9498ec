package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// prepareSendDiagnostic checks SEND DIAGNOSTIC (SPC-4 r37 6.42). Only the default
// self-test is supported, which SBC-3 requires, and no diagnostic page.
func prepareSendDiagnostic(t *Task) error {
	cdb := t.CDB()
	switch {
	case cdb[1]&0xE0 != 0: // SELF-TEST CODE
		return sense.InvalidFieldInCDB(1, 7)
	case binary.BigEndian.Uint16(cdb[3:]) != 0: // PARAMETER LIST LENGTH
		return sense.InvalidFieldInCDB(3, 7)
	}
	return nil
}

// executeSendDiagnostic reads the first and the last block, the only test that a disk
// without hardware has.
func executeSendDiagnostic(ctx context.Context, t *Task) error {
	const selfTest = 0x04
	if t.CDB()[1]&selfTest == 0 {
		return nil
	}
	lu := t.LU
	block := make([]byte, lu.LogicalBlockLength())
	if err := lu.Volume().ReadAt(ctx, block, 0); err != nil {
		return err
	}
	length := int64(len(block))
	return lu.Volume().ReadAt(ctx, block, (lu.Volume().Size()/length-1)*length)
}
