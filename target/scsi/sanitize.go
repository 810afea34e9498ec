package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// Service actions of SANITIZE (SBC-3 5.24). OVERWRITE and CRYPTOGRAPHIC ERASE are not
// supported: the store never overwrites a physical block, and has no key per volume to
// discard, so neither would have the requested effect.
const (
	opSanitize = 0x48

	sanitizeBlockErase      = 0x02
	sanitizeExitFailureMode = 0x1F

	sanitizeIMMED = 0x80 // byte 1
	sanitizeAUSE  = 0x20 // byte 1
)

// prepareSanitize makes the checks that all service actions share.
func prepareSanitize(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x40 != 0 {
		return sense.InvalidFieldInCDB(1, 6)
	}
	for i := 2; i < 7; i++ {
		if cdb[i] != 0 {
			return sense.InvalidFieldInCDB(i, 7)
		}
	}
	// None of the service actions has a parameter list.
	if binary.BigEndian.Uint16(cdb[7:]) != 0 {
		return sense.InvalidFieldInCDB(7, 7)
	}
	return nil
}

// executeBlockErase deallocates the whole medium. With IMMED the status follows the
// start.
func executeBlockErase(ctx context.Context, t *Task) error {
	cdb := t.CDB()
	e := &erasure{kind: sanitizeErasure, unrestricted: cdb[1]&sanitizeAUSE != 0}
	if err := t.LU.eraser.start(ctx, e); err != nil || cdb[1]&sanitizeIMMED != 0 {
		return err
	}
	return e.wait(ctx)
}

// executeExitFailureMode ends the state after a failed sanitize operation, if its
// command permitted that.
func executeExitFailureMode(ctx context.Context, t *Task) error {
	return t.LU.eraser.exitFailure(ctx, sanitizeErasure)
}

// Bits of FORMAT UNIT (SBC-3 5.3).
const (
	formatProtection = 0xC0 // FMTPINFO, byte 1 of the CDB
	formatLongList   = 0x20
	formatData       = 0x10

	formatFOV     = 0x80 // byte 1 of the parameter list
	formatOptions = 0x78 // DPRY, DCRT, STPF, IP
	formatIP      = 0x08
	formatIMMED   = 0x02
)

// prepareFormatUnit checks the CDB, which has no length of the parameter list: its
// header does.
func prepareFormatUnit(t *Task) error {
	cdb := t.CDB()
	switch {
	case cdb[1]&formatProtection != 0:
		return sense.InvalidFieldInCDB(1, 7)
	case cdb[1]&formatData == 0 && cdb[1]&^formatProtection != 0:
		return sense.InvalidFieldInCDB(1, 5)
	case cdb[1]&formatData == 0:
	case cdb[1]&formatLongList != 0:
		t.Wanted = 8
	default:
		t.Wanted = 4
	}
	return nil
}

// executeFormatUnit formats as thin provisioned units do: afterwards nothing is mapped.
func executeFormatUnit(ctx context.Context, t *Task) error {
	immediate, err := parseFormatList(t.DataOut()[:t.Wanted])
	if err != nil {
		return err
	}
	e := &erasure{kind: formatErasure}
	if err := t.LU.eraser.start(ctx, e); err != nil || immediate {
		return err
	}
	return e.wait(ctx)
}

// parseFormatList reads the header of a parameter list; an empty list has no options.
// Defect lists and patterns are not supported.
func parseFormatList(list []byte) (immediate bool, err error) {
	if len(list) == 0 {
		return false, nil
	}
	defects, at := uint32(binary.BigEndian.Uint16(list[2:])), 2
	if len(list) == 8 {
		defects, at = binary.BigEndian.Uint32(list[4:]), 4
	}
	switch {
	case list[0] != 0: // PROTECTION FIELD USAGE
		return false, sense.InvalidFieldInParameterList(0, 2)
	case list[1]&formatFOV == 0 && list[1]&formatOptions != 0:
		return false, sense.InvalidFieldInParameterList(1, 6)
	case list[1]&formatIP != 0:
		return false, sense.InvalidFieldInParameterList(1, 3)
	case len(list) == 8 && list[3] != 0: // PROTECTION INTERVAL EXPONENT
		return false, sense.InvalidFieldInParameterList(3, 3)
	case defects != 0:
		return false, sense.InvalidFieldInParameterList(at, 7)
	}
	return list[1]&formatIMMED != 0, nil
}
