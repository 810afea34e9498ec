package scsi

import (
	"encoding/binary"
	"math/bits"
	"strings"

	"odx/blockdev"
)

// InstallVPD adds a vital product data page (SPC-4 r37 7.8). build returns the part
// after the 4-byte page header. It must not be called once commands arrive.
func (lu *LogicalUnit) InstallVPD(page byte, build func(n *Nexus) []byte) {
	lu.vpd[page] = build
}

// installVPDPages adds the pages of every logical unit.
func (lu *LogicalUnit) installVPDPages() {
	lu.InstallVPD(0x00, lu.vpdSupportedPages)
	lu.InstallVPD(0x80, func(*Nexus) []byte { return []byte(lu.SerialNumber()) })
	lu.InstallVPD(0x83, lu.vpdDeviceIdentification)
	lu.InstallVPD(0x86, vpdExtendedInquiry)
	lu.InstallVPD(0xB0, lu.vpdBlockLimits)
	lu.InstallVPD(0xB1, lu.vpdBlockDeviceCharacteristics)
	lu.InstallVPD(0xB2, lu.vpdLogicalBlockProvisioning)
}

// vpdPage prepends the page header to the body of a page.
func vpdPage(page byte, body []byte) []byte {
	p := make([]byte, 4, 4+len(body))
	p[1] = page
	binary.BigEndian.PutUint16(p[2:], uint16(len(body)))
	return append(p, body...)
}

// vpdSupportedPages is page 00h: the pages in ascending order, which Windows requires
// for third-party copies.
func (lu *LogicalUnit) vpdSupportedPages(*Nexus) []byte {
	var pages []byte
	for page, build := range lu.vpd {
		if build != nil {
			pages = append(pages, byte(page))
		}
	}
	return pages
}

// vpdDeviceIdentification is page 83h.
func (lu *LogicalUnit) vpdDeviceIdentification(n *Nexus) []byte {
	var body []byte
	for _, d := range append(lu.Designators(), lu.portDesignators(n)...) {
		body = d.append(body)
	}
	return body
}

// vpdExtendedInquiry is page 86h (SPC-4 r37 7.8.7).
func vpdExtendedInquiry(*Nexus) []byte {
	b := make([]byte, 60)
	b[1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	b[2] = 0x01 // V_SUP: there is a volatile cache
	b[3] = 0x01 // LUICLR
	b[9] = 252  // maximum supported sense data length
	return b
}

// vpdBlockLimits is page B0h (SBC-3 6.6.4).
func (lu *LogicalUnit) vpdBlockLimits(n *Nexus) []byte {
	b := make([]byte, 60)
	b[0] = 0x01 // WSNZ
	if lu.medium().conditional != nil {
		b[1] = maximumCompareAndWrite
	}
	granularity := uint32(1) << lu.physicalExponent()
	binary.BigEndian.PutUint16(b[2:], uint16(granularity))
	binary.BigEndian.PutUint32(b[4:], lu.MaximumTransferLength())
	binary.BigEndian.PutUint32(b[8:], optimalTransfer>>lu.blockShift)
	if lu.config.Thin {
		binary.BigEndian.PutUint32(b[16:], maximumUnmapBlocks)
		binary.BigEndian.PutUint32(b[20:], maximumUnmapDescriptors)
		if unmap := lu.unmapGranularity(n); unmap > 0 {
			binary.BigEndian.PutUint32(b[24:], unmap)
			binary.BigEndian.PutUint32(b[28:], 1<<31) // UGAVALID, alignment 0
		}
	}
	binary.BigEndian.PutUint64(b[32:], maximumWriteSame>>lu.blockShift)
	if lu.medium().atomic != nil { // SBC-4 6.6.4; no atomic boundaries
		binary.BigEndian.PutUint32(b[40:], lu.maximumAtomicTransfer())
		binary.BigEndian.PutUint32(b[44:], lu.atomicUnit())
		binary.BigEndian.PutUint32(b[48:], lu.atomicUnit())
	}
	return b
}

// microsoftInitiators is the prefix of the names of Microsoft's initiator.
const microsoftInitiators = "iqn.1991-05.com.microsoft:"

// unmapGranularity returns OPTIMAL UNMAP GRANULARITY in logical blocks; 0: not
// reported. One logical block is no restriction and needs no report: qemu uses the
// granularity as the cluster size of a map, and qemu 7.2 fails an assertion on that map
// with logical blocks of 4096 bytes. But Microsoft's class driver divides by it, also
// if it is 0.
func (lu *LogicalUnit) unmapGranularity(n *Nexus) uint32 {
	if set := lu.changeable.unmapGranularity.Load(); set > 0 {
		return uint32(set >> lu.blockShift)
	}
	granularity := uint32(1) << lu.physicalExponent()
	if granularity == 1 && !strings.HasPrefix(n.ID.InitiatorName, microsoftInitiators) {
		return 0
	}
	return granularity
}

// vpdBlockDeviceCharacteristics is page B1h (SBC-3 6.6.3).
func (lu *LogicalUnit) vpdBlockDeviceCharacteristics(*Nexus) []byte {
	b := make([]byte, 60)
	binary.BigEndian.PutUint16(b, 1) // medium rotation rate: non-rotating
	if lu.opcodes[opSanitize].actions != nil {
		b[3] = 0x40 // WABEREQ 01b: after a block erase, reads succeed and return zeros
	}
	return b
}

// physicalExponent returns LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: the store maps
// blocks of 4 KiB, and a shorter write is a read-modify-write.
func (lu *LogicalUnit) physicalExponent() byte {
	return byte(bits.TrailingZeros(blockdev.BlockLength) - int(lu.blockShift))
}
