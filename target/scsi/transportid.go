package scsi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// Formats of iSCSI TransportIDs (SPC-4 r37 7.6.4.6).
const (
	transportIDName = 0x00 // an iSCSI name: any port of that initiator
	transportIDPort = 0x40 // a name and an ISID: one initiator port
)

const (
	transportIDHeader    = 4
	minTransportIDLength = 20 // of what follows the header
	maxISCSINameLength   = 223
	isidSeparator        = ",i,0x"
)

// transportID names an initiator port, or all of an initiator.
type transportID struct {
	name string
	// isid is nil in a TransportID that is a name only.
	isid *[6]byte
}

// matches reports whether the TransportID names the initiator port of id.
func (t transportID) matches(id NexusID) bool {
	return t.name == id.InitiatorName && (t.isid == nil || *t.isid == id.ISID)
}

// appendTransportID appends the TransportID of id's initiator port.
func appendTransportID(dst []byte, id NexusID) []byte {
	name := id.InitiatorName + isidSeparator + hex.EncodeToString(id.ISID[:])
	length := max((len(name)+4)/4*4, minTransportIDLength)
	dst = append(dst, transportIDPort|protocolISCSI, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(dst, name...)
	return append(dst, make([]byte, length-len(name))...)
}

// parseTransportID reads the TransportID that p begins with and returns what
// follows it. ok is false for one that is malformed or of another protocol.
func parseTransportID(p []byte) (t transportID, rest []byte, ok bool) {
	if len(p) < transportIDHeader {
		return t, nil, false
	}
	format := p[0] & 0xC0
	length := int(binary.BigEndian.Uint16(p[2:]))
	end := transportIDHeader + length
	if p[0]&0x0F != protocolISCSI || format != transportIDName && format != transportIDPort ||
		length < minTransportIDLength || length%4 != 0 || end > len(p) {
		return t, nil, false
	}
	name, padding, terminated := bytes.Cut(p[transportIDHeader:end], []byte{0})
	if !terminated || len(bytes.Trim(padding, "\x00")) != 0 {
		return t, nil, false
	}
	// RFC 7143 4.2.7.1: names are compared in lower case.
	t.name = strings.ToLower(string(name))
	if format == transportIDPort {
		if t.name, t.isid, ok = cutISID(t.name); !ok {
			return t, nil, false
		}
	}
	if t.name == "" || len(t.name) > maxISCSINameLength {
		return t, nil, false
	}
	return t, p[end:], true
}

// cutISID takes apart "name,i,0xISID".
func cutISID(s string) (name string, isid *[6]byte, ok bool) {
	name, digits, found := strings.Cut(s, isidSeparator)
	isid = new([6]byte)
	if !found || len(digits) != 2*len(isid) {
		return "", nil, false
	}
	if _, err := hex.Decode(isid[:], []byte(digits)); err != nil {
		return "", nil, false
	}
	return name, isid, true
}

// parseTransportIDs reads a list that p is filled with.
func parseTransportIDs(p []byte) (list []transportID, ok bool) {
	for len(p) > 0 {
		var t transportID
		if t, p, ok = parseTransportID(p); !ok {
			return nil, false
		}
		list = append(list, t)
	}
	return list, true
}
