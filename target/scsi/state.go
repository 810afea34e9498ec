package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// executeNoOp is TEST UNIT READY (SPC-4 r37 6.47): all checks are in prepare.
func executeNoOp(context.Context, *Task) error { return nil }

// executeRequestSense returns as parameter data a pending unit attention or deferred
// error, which it clears, or else the reason why the unit is not ready, with the
// progress (SPC-4 r37 6.39).
func executeRequestSense(_ context.Context, t *Task) error {
	cdb := t.CDB()
	se := sense.New(sense.KeyNoSense, sense.ASCNone)
	if t.itl == nil {
		se = sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	} else if pending := t.itl.takePending(); pending != nil {
		se = pending
	} else if held, ok := t.LU.Ready().(*sense.Error); ok {
		se = held
	}
	format := sense.Fixed
	if cdb[1]&0x01 != 0 { // DESC
		format = sense.Descriptor
	}
	t.SetDataIn(se.AppendSense(nil, format), uint32(cdb[4]))
	return nil
}

// executeReadCapacity10 is READ CAPACITY(10) (SBC-3 5.15). It reads the size from the
// volume: the sender may know of a new size by other means.
func executeReadCapacity10(_ context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	const pmi = 0x01
	if cdb[8]&pmi == 0 && binary.BigEndian.Uint32(cdb[2:]) != 0 {
		return sense.InvalidFieldInCDB(2, 7)
	}
	lu.Resized()
	var data [8]byte
	binary.BigEndian.PutUint32(data[:], uint32(min(lu.Blocks()-1, 0xFFFFFFFF)))
	binary.BigEndian.PutUint32(data[4:], uint32(lu.LogicalBlockLength()))
	t.SetDataIn(data[:], uint32(len(data)))
	return nil
}

// executeReadCapacity16 is READ CAPACITY(16) (SBC-3 5.16).
func executeReadCapacity16(_ context.Context, t *Task) error {
	t.LU.Resized()
	data := t.LU.ReadCapacity16()
	t.SetDataIn(data[:], binary.BigEndian.Uint32(t.CDB()[10:]))
	return nil
}

// ReadCapacity16 returns the current parameter data of READ CAPACITY(16). The copy
// manager includes it in its tokens.
func (lu *LogicalUnit) ReadCapacity16() [32]byte {
	var data [32]byte
	binary.BigEndian.PutUint64(data[:], lu.Blocks()-1)
	binary.BigEndian.PutUint32(data[8:], uint32(lu.LogicalBlockLength()))
	data[13] = lu.physicalExponent()
	if lu.config.Thin {
		data[14] = 0x80 | 0x40 // LBPME, LBPRZ
	}
	return data
}
