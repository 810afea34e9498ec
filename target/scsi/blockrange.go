package scsi

import (
	"encoding/binary"

	"odx/target/scsi/sense"
)

// blockRange is the LBA and the transfer length of a block command.
type blockRange struct {
	lba    uint64
	blocks uint64
	// lengthField is the CDB byte where the length starts, for field pointers.
	lengthField int
}

// rangeOf decodes LBA and length of a CDB with the usual layout for its size. In the
// 6-byte form a length of zero means 256 blocks.
func rangeOf(cdb []byte) blockRange {
	switch cdb[0] >> 5 { // group code: SPC-4 r37 4.2.5.1
	case 0:
		r := blockRange{uint64(binary.BigEndian.Uint32(cdb)) & 0x1FFFFF, uint64(cdb[4]), 4}
		if r.blocks == 0 {
			r.blocks = 256
		}
		return r
	case 1, 2:
		return blockRange{uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:])), 7}
	case 5:
		return blockRange{uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:])), 6}
	default:
		return blockRange{binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:])), 10}
	}
}

// checkRange returns LBA OUT OF RANGE unless [lba, lba+blocks) lies inside the medium.
// An empty range may start right after the last block.
func (lu *LogicalUnit) checkRange(lba, blocks uint64) error {
	capacity := lu.Blocks()
	if lba > capacity || blocks > capacity-lba {
		return sense.New(sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
	return nil
}

// checkTransfer makes the checks that all commands with a range share, and sets
// t.Offset and t.TL to the range in bytes.
func (t *Task) checkTransfer() error {
	cdb := t.CDB()
	lu := t.LU
	if cdb[0]>>5 != 0 && cdb[1]&0xE0 != 0 { // RDPROTECT, WRPROTECT, VRPROTECT: no protection information
		return sense.InvalidFieldInCDB(1, 7)
	}
	r := rangeOf(cdb)
	if err := lu.checkRange(r.lba, r.blocks); err != nil {
		return err
	}
	if r.blocks > uint64(lu.MaximumTransferLength()) {
		return sense.InvalidFieldInCDB(r.lengthField, 7)
	}
	t.Offset = r.lba << lu.blockShift
	t.TL = uint32(r.blocks << lu.blockShift)
	return nil
}

// forcesUnitAccess reports the FUA bit, which the 6-byte commands do not have.
func forcesUnitAccess(cdb []byte) bool {
	return cdb[0]>>5 != 0 && cdb[1]&0x08 != 0
}
