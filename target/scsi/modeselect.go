package scsi

import (
	"context"
	"encoding/binary"
	"fmt"

	"odx/target/scsi/mode"
	"odx/target/scsi/sense"
)

// prepareModeSelect6 and prepareModeSelect10 check the CDBs of MODE SELECT
// (SPC-4 r37 6.9, 6.10).
func prepareModeSelect6(t *Task) error {
	if err := checkModeSelect(t); err != nil {
		return err
	}
	t.Wanted = uint32(t.CDB()[4])
	return nil
}

func prepareModeSelect10(t *Task) error {
	if err := checkModeSelect(t); err != nil {
		return err
	}
	t.Wanted = uint32(binary.BigEndian.Uint16(t.CDB()[7:]))
	return nil
}

// Bits of byte 1 of MODE SELECT.
const (
	modeSelectPF = 0x10
	modeSelectSP = 0x01
)

func checkModeSelect(t *Task) error {
	flags := t.CDB()[1]
	if flags&modeSelectPF == 0 { // SCSI-1 parameters are not supported
		return sense.InvalidFieldInCDB(1, 4)
	}
	if flags&modeSelectSP != 0 && !t.LU.modes.Savable() {
		return sense.InvalidFieldInCDB(1, 0)
	}
	return nil
}

func executeModeSelect6(ctx context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list) < 4 {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	return t.modeSelect(ctx, list, 4, int(list[3]), shortDescriptor)
}

func executeModeSelect10(ctx context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list) < 8 {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	form := shortDescriptor
	if list[4]&0x01 != 0 { // LONGLBA
		form = longDescriptor
	}
	return t.modeSelect(ctx, list, 8, int(binary.BigEndian.Uint16(list[6:])), form)
}

// descriptorForm is the length of a mode parameter block descriptor.
type descriptorForm int

const (
	shortDescriptor descriptorForm = 8
	longDescriptor  descriptorForm = 16
)

// modeSelect checks a mode parameter list with a header of headerLength bytes, and sets
// its pages only if the whole list is valid.
func (t *Task) modeSelect(ctx context.Context, list []byte, headerLength, descriptorLength int, form descriptorForm) error {
	lu := t.LU
	at := headerLength + descriptorLength
	if at > len(list) {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	if descriptorLength != 0 {
		if descriptorLength != int(form) {
			return sense.InvalidFieldInParameterList(headerLength-1, sense.WholeField)
		}
		if err := lu.checkBlockDescriptor(list[headerLength:at], headerLength); err != nil {
			return err
		}
	}
	set := lu.modes.Select
	if t.CDB()[1]&modeSelectSP != 0 {
		set = lu.modes.Save
	}
	before := lu.modes.Saved()
	changed, err := set(ctx, list, at)
	if err == nil {
		t.auditSaved(before, lu.modes.Saved())
	}
	if err != nil || !changed {
		return err
	}
	lu.establish(sense.ASCModeParametersChanged, t.Nexus)
	if lu.WriteThrough() {
		// Data that was cached when the cache was turned off must reach the medium too
		// (SBC-3 6.5.5, WCE).
		return lu.Volume().Flush(ctx)
	}
	return nil
}

// auditSaved reports the mode pages whose saved values have changed.
func (t *Task) auditSaved(before, after []mode.Page) {
	for i := range after {
		t.audit("saved mode page "+after[i].Name(), fmt.Sprintf("%x", before[i].Values), fmt.Sprintf("%x", after[i].Values))
	}
}

// checkBlockDescriptor rejects a block descriptor with another capacity or block
// length, neither of which can be changed.
func (lu *LogicalUnit) checkBlockDescriptor(d []byte, offset int) error {
	blocks, length := uint64(binary.BigEndian.Uint32(d)), binary.BigEndian.Uint32(d[4:])&0xFFFFFF
	unlimited := uint64(0xFFFFFFFF)
	if len(d) == int(longDescriptor) {
		blocks, length = binary.BigEndian.Uint64(d), binary.BigEndian.Uint32(d[12:])
		unlimited = 0xFFFFFFFFFFFFFFFF
	}
	// Zero keeps the capacity, and all ones requests the largest (SBC-3 6.5.2.2).
	if blocks != 0 && blocks != unlimited && blocks != lu.Blocks() {
		return sense.InvalidFieldInParameterList(offset, 7)
	}
	if int(length) != lu.LogicalBlockLength() {
		return sense.InvalidFieldInParameterList(offset+len(d)-3, 7)
	}
	return nil
}
