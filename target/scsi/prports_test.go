package scsi

import (
	"strings"
	"testing"
)

// nameOnly is a TransportID that is an iSCSI name.
func nameOnly(name string) []byte {
	length := max((len(name)+4)/4*4, minTransportIDLength)
	d := append([]byte{transportIDName | protocolISCSI, 0, byte(length >> 8), byte(length)}, name...)
	return append(d, make([]byte, length-len(name))...)
}

func TestTransportIDLayout(t *testing.T) {
	id := NexusID{InitiatorName: "iqn.2026-11.example.initiator:b", ISID: [6]byte{0x80, 0x12, 0x34, 0xAB, 0xCD, 0xEF}}
	wantHex(t, appendTransportID(nil, id), `
		45 00 0034
		69716e2e 32303236 2d31312e 6578616d 706c652e 696e6974 6961746f 723a62
		2c692c3078 383031323334616263646566 00000000`)
	wantHex(t, appendTransportID(nil, NexusID{InitiatorName: "a"}), "45 00 0014  612c692c 30783030 30303030 30303030 30300000")
}

func TestParseTransportID(t *testing.T) {
	isid := [6]byte{0x80, 0, 0, 0, 0, 0xAB}
	port := appendTransportID(nil, NexusID{InitiatorName: "iqn.a", ISID: isid})
	got, rest, ok := parseTransportID(append(port[:len(port):len(port)], 1, 2))
	if !ok || got.name != "iqn.a" || got.isid == nil || *got.isid != isid || len(rest) != 2 {
		t.Errorf("a port: %+v, %d bytes left, %t", got, len(rest), ok)
	}
	if got, _, ok = parseTransportID(nameOnly("IQN.A")); !ok || got.name != "iqn.a" || got.isid != nil {
		t.Errorf("a name: %+v, %t", got, ok)
	}
	longest := strings.Repeat("n", maxISCSINameLength)
	if _, _, ok := parseTransportID(nameOnly(longest)); !ok {
		t.Error("the longest name was refused")
	}
	edit := func(at int, b byte) []byte {
		p := append([]byte(nil), port...)
		p[at] = b
		return p
	}
	for name, p := range map[string][]byte{
		"nothing":               {},
		"half a header":         port[:3],
		"cut":                   port[:len(port)-1],
		"SAS":                   edit(0, 0x46),
		"reserved format":       edit(0, 0x85),
		"length of no multiple": edit(3, port[3]+1),
		"short":                 {0x05, 0, 0, 4, 'i', 'q', 'n', 0},
		"not terminated":        edit(len(port)-1, 'x'),
		"name too long":         nameOnly(longest + "n"),
		"no name":               nameOnly(""),
		"port without ISID":     append([]byte{0x45}, nameOnly("iqn.a")[1:]...),
		"ISID of five bytes":    append([]byte{0x45}, nameOnly("iqn.a,i,0x8000000000")[1:]...),
		"ISID that is no hex":   append([]byte{0x45}, nameOnly("iqn.a,i,0x80000000000g")[1:]...),
	} {
		if got, _, ok := parseTransportID(p); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
}

// TestRegisterNamedPorts: SPEC_I_PT registers other initiator ports too.
func TestRegisterNamedPorts(t *testing.T) {
	f := newPRFixture(t)
	away := NexusID{InitiatorName: "iqn.2026-11.example.initiator:away", ISID: [6]byte{5: 1}, TargetName: f.target.Name(), TargetPortalGroupTag: 1}
	f.must(f.c, prOutRegister, 0, 0, 0x0C)
	f.out(f.a, prOutRegister, 0, prOutNaming(0, 0x0A, 0,
		appendTransportID(nil, f.a.ID), // itself: once is enough
		appendTransportID(nil, away),
		nameOnly(strings.ToUpper(f.b.ID.InitiatorName)),
		appendTransportID(nil, f.c.ID), // has a key, and keeps it
	)).wantStatus(t, good)
	f.wantKeys(0x0C, 0x0A, 0x0A, 0x0A)
	f.must(f.b, prOutReserve, typeExclusiveAccess, 0x0A, 0)
	if s := f.lu.persistent.Load(); s.key(away) != 0x0A || s.generation != 2 {
		t.Errorf("%+v", s)
	}
	n := f.target.Attach(away)
	n.unit([8]byte{}).takePending()
	f.must(n, prOutRegister, 0, 0x0A, 0)
}

func TestRegisterNamedPortsRefuses(t *testing.T) {
	f := newPRFixture(t)
	b := appendTransportID(nil, f.b.ID)
	list := prOutNaming(0, 0x0A, 0, b)
	for name, tt := range map[string]struct {
		action byte
		list   []byte
		asc    ASC
	}{
		"IGNORE EXISTING KEY":        {prOutRegisterAndIgnore, list, ASCInvalidFieldInParameterList},
		"length field too small":     {prOutRegister, append(list[:len(list):len(list)], 0, 0, 0, 0), ASCParameterListLengthError},
		"length field missing":       {prOutRegister, list[:24], ASCParameterListLengthError},
		"a TransportID cut":          {prOutRegister, prOutNaming(0, 0x0A, 0, b[:len(b)-4]), ASCInvalidFieldInParameterList},
		"a name that nobody has":     {prOutRegister, prOutNaming(0, 0x0A, 0, nameOnly("iqn.nobody")), ASCInvalidFieldInParameterList},
		"longer without SPEC_I_PT":   {prOutRegister, append(prOutList(0, 0x0A, 0), 0, 0, 0, 0), ASCParameterListLengthError},
		"shorter than a list can be": {prOutRegister, prOutList(0, 0x0A, 0)[:23], ASCParameterListLengthError},
		"none":                       {prOutRegister, nil, ASCParameterListLengthError},
		"APTPL and nowhere to keep":  {prOutRegister, prOutList(0, 0x0A, 0x01), ASCInvalidFieldInParameterList},
	} {
		t.Run(name, func(t *testing.T) {
			f.out(f.a, tt.action, 0, tt.list).wantSense(t, KeyIllegalRequest, tt.asc)
			f.wantKeys()
		})
	}
	f.must(f.a, prOutRegister, 0, 0, 0x0A)
	f.out(f.a, prOutRegister, 0, prOutNaming(0x0A, 0x0A, 0, b)).wantSense(t, KeyIllegalRequest, ASCInvalidFieldInParameterList)
}

// TestRegisterAtAllTargetPorts: ALL_TG_PT.
func TestRegisterAtAllTargetPorts(t *testing.T) {
	f := newPRFixture(t)
	f.target.ports = []PortGroup{{Tag: 1}, {Tag: 2}, {Tag: 9}}
	if err := f.lu.addPorts(f.target); err != nil {
		t.Fatal(err)
	}
	at := func(tag uint16) NexusID { id := f.a.ID; id.TargetPortalGroupTag = tag; return id }
	f.out(f.a, prOutRegister, 0, prOutList(0, 0x0A, 0x04)).wantStatus(t, good)
	f.wantKeys(0x0A, 0x0A, 0x0A)
	second := f.target.Attach(at(2))
	second.unit([8]byte{}).takePending()
	f.must(second, prOutRegister, 0, 0x0A, 0x22) // this path goes its own way
	f.out(f.a, prOutRegister, 0, prOutList(0x0A, 0, 0x04)).wantStatus(t, good)
	f.wantKeys(0x22)
	f.out(f.a, prOutRegisterAndIgnore, 0, prOutList(0, 0x33, 0x04)).wantStatus(t, good)
	if s := f.lu.persistent.Load(); s.key(at(1)) != 0x33 || s.key(at(2)) != 0x33 || s.key(at(9)) != 0x33 {
		t.Errorf("%+v", s.registrations)
	}
	f.out(f.a, prOutRegister, 0, prOutNaming(0, 0x44, 0x04, appendTransportID(nil, f.b.ID))).wantStatus(t, conflict)
	f.out(f.b, prOutRegister, 0, prOutNaming(0, 0x44, 0x04, appendTransportID(nil, f.c.ID))).wantStatus(t, good)
	f.wantKeys(0x33, 0x33, 0x33, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44)
}

func TestRegisterAndMove(t *testing.T) {
	for _, unreg := range []byte{0, 0x02} {
		f := newPRFixture(t)
		f.must(f.a, prOutRegister, 0, 0, 0x0A)
		f.must(f.a, prOutReserve, typeExclusiveAccess, 0x0A, 0)
		f.out(f.a, prOutRegisterAndMove, 0, prMoveList(0x0A, 0x0B, unreg, 1, appendTransportID(nil, f.b.ID))).wantStatus(t, good)
		f.wantReservation(typeExclusiveAccess, 0x0B)
		if unreg != 0 {
			f.wantKeys(0x0B)
		} else {
			f.wantKeys(0x0A, 0x0B)
		}
		f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
		f.on(f.a, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
	}
}

func TestRegisterAndMoveRefuses(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, prOutRegister, 0, 0, 0x0A)
	b := appendTransportID(nil, f.b.ID)
	move := func(n *Nexus, list []byte) result { return f.out(n, prOutRegisterAndMove, 0, list) }
	move(f.a, prMoveList(0x0A, 0x0B, 0, 1, b)).wantSense(t, KeyIllegalRequest, ASCInvalidFieldInCDB) // nothing is reserved
	f.must(f.a, prOutReserve, typeWriteExclusive, 0x0A, 0)
	f.must(f.c, prOutRegister, 0, 0, 0x0C)
	move(f.c, prMoveList(0x0C, 0x0B, 0, 1, b)).wantSense(t, KeyIllegalRequest, ASCInvalidFieldInCDB) // it is another's
	for name, list := range map[string][]byte{
		"key 0":             prMoveList(0x0A, 0, 0, 1, b),
		"no such port":      prMoveList(0x0A, 0x0B, 0, 2, b),
		"a name only":       prMoveList(0x0A, 0x0B, 0, 1, nameOnly(f.b.ID.InitiatorName)),
		"two":               prMoveList(0x0A, 0x0B, 0, 1, append(b[:len(b):len(b)], b...)),
		"to itself":         prMoveList(0x0A, 0x0B, 0, 1, appendTransportID(nil, f.a.ID)),
		"APTPL, not stored": prMoveList(0x0A, 0x0B, 1, 1, b),
	} {
		t.Run(name, func(t *testing.T) {
			move(f.a, list).wantSense(t, KeyIllegalRequest, ASCInvalidFieldInParameterList)
		})
	}
	f.wantKeys(0x0A, 0x0C)
	f.must(f.a, prOutRelease, typeWriteExclusive, 0x0A, 0)
	f.must(f.a, prOutReserve, typeWriteExclusiveAllRegistrants, 0x0A, 0)
	move(f.a, prMoveList(0x0A, 0x0B, 0, 1, b)).wantStatus(t, conflict)
}

func TestRegistrationsAreBounded(t *testing.T) {
	f := newPRFixture(t)
	for i := range maxRegistrations + 1 {
		n := f.a.ID
		n.ISID = [6]byte{0, 0, 0, 1, byte(i >> 8), byte(i)}
		nexus := f.target.Attach(n)
		nexus.unit([8]byte{}).takePending()
		r := f.out(nexus, prOutRegister, 0, prOutList(0, 1, 0))
		if i < maxRegistrations {
			r.wantStatus(t, good)
		} else {
			r.wantSense(t, KeyIllegalRequest, ASCInsufficientRegistrationResources)
		}
	}
}
