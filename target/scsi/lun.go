package scsi

import "encoding/binary"

// maxLUN is the largest number of flat space addressing.
const maxLUN = 0x3FFF

// decodeLUN returns the number of a single level LUN in peripheral device or
// flat space addressing (SAM-5 4.7.7); ok is false for any other LUN.
func decodeLUN(lun [8]byte) (number uint16, ok bool) {
	if binary.BigEndian.Uint64(lun[:])&0x0000FFFFFFFFFFFF != 0 {
		return 0, false
	}
	field := binary.BigEndian.Uint16(lun[:])
	switch field >> 14 {
	case 0:
		// Peripheral device addressing. A bus other than 0 would be a second level,
		// which does not exist here: libiscsi writes numbers above 255 this way.
		return field, true
	case 1: // flat space addressing
		return field & maxLUN, true
	}
	return 0, false
}

// EncodeLUN returns the LUN of a number in the most widely supported form: peripheral
// device addressing up to 255, flat space addressing above.
func EncodeLUN(number uint16) (lun [8]byte) {
	if number > 0xFF {
		number |= 1 << 14
	}
	binary.BigEndian.PutUint16(lun[:], number)
	return lun
}
