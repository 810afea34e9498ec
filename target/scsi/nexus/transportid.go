package nexus

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// Formats of iSCSI TransportIDs (SPC-4 r37 7.6.4.6).
const (
	transportIDName = 0x00 // an iSCSI name: any port of the initiator
	transportIDPort = 0x40 // a name and an ISID: one initiator port
)

const (
	transportIDHeader    = 4
	minTransportIDLength = 20 // of the part after the header
	maxISCSINameLength   = 223
	isidSeparator        = ",i,0x"
)

// TransportID identifies an initiator port, or all ports of an initiator.
type TransportID struct {
	Name string
	// ISID is nil in a TransportID that has only a name.
	ISID *[6]byte
}

// Matches reports whether the TransportID includes the initiator port of id.
func (t TransportID) Matches(id ID) bool {
	return t.Name == id.InitiatorName && (t.ISID == nil || *t.ISID == id.ISID)
}

// AppendTransportID appends the TransportID of id's initiator port.
func AppendTransportID(dst []byte, id ID) []byte {
	name := id.InitiatorName + isidSeparator + hex.EncodeToString(id.ISID[:])
	length := max((len(name)+4)/4*4, minTransportIDLength)
	dst = append(dst, transportIDPort|ProtocolISCSI, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(dst, name...)
	return append(dst, make([]byte, length-len(name))...)
}

// parseTransportID reads the first TransportID of p and returns the rest. ok is false
// for one that is malformed or of another protocol.
func parseTransportID(p []byte) (t TransportID, rest []byte, ok bool) {
	if len(p) < transportIDHeader {
		return t, nil, false
	}
	format := p[0] & 0xC0
	length := int(binary.BigEndian.Uint16(p[2:]))
	end := transportIDHeader + length
	if p[0]&0x0F != ProtocolISCSI || format != transportIDName && format != transportIDPort ||
		length < minTransportIDLength || length%4 != 0 || end > len(p) {
		return t, nil, false
	}
	name, padding, terminated := bytes.Cut(p[transportIDHeader:end], []byte{0})
	if !terminated || len(bytes.Trim(padding, "\x00")) != 0 {
		return t, nil, false
	}
	// RFC 7143 4.2.7.1: names are compared in lower case.
	t.Name = strings.ToLower(string(name))
	if format == transportIDPort {
		if t.Name, t.ISID, ok = splitISID(t.Name); !ok {
			return t, nil, false
		}
	}
	if t.Name == "" || len(t.Name) > maxISCSINameLength {
		return t, nil, false
	}
	return t, p[end:], true
}

// splitISID splits "name,i,0xISID".
func splitISID(s string) (name string, isid *[6]byte, ok bool) {
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

// AtPort returns the nexus of the initiator port of t and the target port of another
// nexus. t must have an ISID.
func (t TransportID) AtPort(of ID) ID {
	return ID{InitiatorName: t.Name, ISID: *t.ISID, TargetName: of.TargetName, TargetPortalGroupTag: of.TargetPortalGroupTag}
}

// ParseTransportIDs reads a list of TransportIDs that fills p.
func ParseTransportIDs(p []byte) (list []TransportID, ok bool) {
	for len(p) > 0 {
		var t TransportID
		if t, p, ok = parseTransportID(p); !ok {
			return nil, false
		}
		list = append(list, t)
	}
	return list, true
}
