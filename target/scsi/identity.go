package scsi

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"odx/target/scsi/nexus"
)

// companyID takes the place of an IEEE OUI. odx has none, so it is from the
// administratively assigned range (IEEE 802c: second hex digit 2), which is never
// assigned to a manufacturer.
var companyID = [3]byte{0x02, 0x6F, 0x64}

// Values of designation descriptors (SPC-4 r37 7.8.6).
const (
	codeSetBinary = 1
	codeSetASCII  = 2
	codeSetUTF8   = 3

	associationLU     = 0
	associationPort   = 1
	associationTarget = 2

	designatorT10       = 1
	designatorEUI       = 2
	designatorNAA       = 3
	designatorPort      = 4
	designatorPortGroup = 5
	designatorName      = 8
)

// Designator is one identification of a logical unit, target port or target
// device.
type Designator struct {
	CodeSet, Association, Type byte
	ID                         []byte
}

// append adds the designation descriptor of d to dst. Ports and devices name
// their protocol.
func (d Designator) append(dst []byte) []byte {
	first, second := d.CodeSet, d.Association<<4|d.Type
	if d.Association != associationLU {
		first |= nexus.ProtocolISCSI << 4
		second |= 0x80 // PIV
	}
	dst = append(dst, first, second, 0, byte(len(d.ID)))
	return append(dst, d.ID...)
}

// Equal reports whether d and o are the same designator.
func (d Designator) Equal(o Designator) bool {
	return d.CodeSet == o.CodeSet && d.Association == o.Association && d.Type == o.Type && bytes.Equal(d.ID, o.ID)
}

// NAA returns the NAA IEEE Registered Extended designator (NAA 6h): the company
// identifier, then the first 100 bits of the identity.
func (lu *LogicalUnit) NAA() [16]byte {
	id := lu.config.ID
	var naa [16]byte
	naa[0] = 0x60 | companyID[0]>>4
	naa[1] = companyID[0]<<4 | companyID[1]>>4
	naa[2] = companyID[1]<<4 | companyID[2]>>4
	naa[3] = companyID[2]<<4 | id[0]>>4
	for i := range 12 {
		naa[4+i] = id[i]<<4 | id[i+1]>>4
	}
	return naa
}

// EUI64 returns the EUI-64 based 16-byte designator: 64 bits of the identity as
// identifier extension, the company identifier, and 40 bits of the identity.
func (lu *LogicalUnit) EUI64() [16]byte {
	id := lu.config.ID
	var eui [16]byte
	copy(eui[:8], id[:8])
	copy(eui[8:], companyID[:])
	copy(eui[11:], id[8:13])
	return eui
}

// SerialNumber returns the unit serial number: the identity in hexadecimal.
func (lu *LogicalUnit) SerialNumber() string { return hex.EncodeToString(lu.config.ID[:]) }

// Designators returns the designators of the logical unit itself, the preferred
// one first.
func (lu *LogicalUnit) Designators() []Designator {
	naa, eui := lu.NAA(), lu.EUI64()
	// A CSCD descriptor of EXTENDED COPY has 20 bytes for a designator (SPC-4 r37
	// 6.4.5.6), so the vendor specific part is 72 bits of the identity, not product and
	// serial number. The shortest SCSI name string of a logical unit, "eui." with 16
	// digits and a terminator, has 24 bytes.
	t10 := padded(lu.config.VendorID, 8) + base64.RawURLEncoding.EncodeToString(lu.config.ID[:9])
	return []Designator{
		{codeSetBinary, associationLU, designatorNAA, naa[:]},
		{codeSetBinary, associationLU, designatorEUI, eui[:]},
		{codeSetASCII, associationLU, designatorT10, []byte(t10)},
		{codeSetUTF8, associationLU, designatorName, scsiName("naa." + strings.ToUpper(hex.EncodeToString(naa[:])))},
	}
}

// portDesignators returns the designators of the target port and the target device of a
// nexus.
func (lu *LogicalUnit) portDesignators(n *Nexus) []Designator {
	var port [4]byte
	binary.BigEndian.PutUint16(port[2:], lu.relativePort(n.ID))
	tag := hex.EncodeToString(binary.BigEndian.AppendUint16(nil, n.ID.TargetPortalGroupTag))
	return []Designator{
		{codeSetBinary, associationPort, designatorPort, port[:]},
		{codeSetBinary, associationPort, designatorPortGroup, port[:]},
		{codeSetUTF8, associationPort, designatorName, scsiName(n.ID.TargetName + ",t,0x" + tag)},
		{codeSetUTF8, associationTarget, designatorName, scsiName(n.ID.TargetName)},
	}
}

// scsiName returns a SCSI name string, terminated by a zero byte and padded to a
// multiple of four (SPC-4 r37 7.8.6.11).
func scsiName(name string) []byte {
	p := make([]byte, (len(name)+4)/4*4)
	copy(p, name)
	return p
}

// padded returns s padded with spaces to n characters.
func padded(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }
