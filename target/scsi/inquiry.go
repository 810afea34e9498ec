package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

const (
	standardInquiryLength = 96
	// SPC-4 r37 6.6.2: no logical unit at this LUN, and none possible.
	peripheralMissing = 0x7F
)

// versionDescriptors are the standards claimed (SPC-4 r37 6.6.2 table 142).
var versionDescriptors = [...]uint16{
	0x00A0, // SAM-5
	0x0460, // SPC-4
	0x04C0, // SBC-3
	0x0960, // iSCSI
}

// executeInquiry is INQUIRY (SPC-4 r37 6.6).
func executeInquiry(_ context.Context, t *Task) error {
	cdb := t.CDB()
	allocationLength := uint32(binary.BigEndian.Uint16(cdb[3:]))
	if cdb[1]&0x02 != 0 { // CMDDT of older standards
		return sense.InvalidFieldInCDB(1, 1)
	}
	const evpd = 0x01
	if cdb[1]&evpd == 0 {
		if cdb[2] != 0 {
			return sense.InvalidFieldInCDB(2, 7)
		}
		data := t.itl.standardInquiry()
		t.SetDataIn(data[:], allocationLength)
		return nil
	}
	build := t.LU.vpd[cdb[2]]
	if build == nil {
		return sense.InvalidFieldInCDB(2, 7)
	}
	t.SetDataIn(vpdPage(cdb[2], build(t.Nexus)), allocationLength)
	return nil
}

// standardInquiry builds the standard INQUIRY data.
func (i *itlNexus) standardInquiry() [standardInquiryLength]byte {
	const implicitAccess, explicitAccess = 0x10, 0x20 // TPGS
	lu := i.lu
	var d [standardInquiryLength]byte
	d[2] = 6           // version: SPC-4
	d[3] = 0x10 | 0x02 // HISUP, response data format
	d[4] = standardInquiryLength - 5
	d[5] = implicitAccess
	if i.setsPorts() {
		d[5] |= explicitAccess
	}
	if lu.hasThirdPartyCopy() {
		d[5] |= 0x08 // 3PC
	}
	d[7] = 0x02 // CMDQUE
	copy(d[8:16], padded(lu.config.VendorID, 8))
	copy(d[16:32], padded(lu.config.ProductID, 16))
	copy(d[32:36], padded(lu.config.Revision, 4))
	for i, v := range versionDescriptors {
		binary.BigEndian.PutUint16(d[58+2*i:], v)
	}
	return d
}

// hasThirdPartyCopy reports whether commands of both third-party copy operation codes
// are installed.
func (lu *LogicalUnit) hasThirdPartyCopy() bool {
	return lu.opcodes[0x83].actions != nil && lu.opcodes[0x84].actions != nil
}

// executeInquiryMissing runs INQUIRY for a LUN without logical unit.
func executeInquiryMissing(_ context.Context, t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x03 != 0 || cdb[2] != 0 {
		return sense.InvalidFieldInCDB(1, 0)
	}
	var d [36]byte
	d[0], d[2], d[3], d[4] = peripheralMissing, 6, 0x12, byte(len(d)-5)
	copy(d[8:], padded("ODX", 28))
	t.SetDataIn(d[:], uint32(binary.BigEndian.Uint16(cdb[3:])))
	return nil
}
