package scsi

import (
	"strings"
	"testing"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// nameOnly is a TransportID that is an iSCSI name.
func nameOnly(name string) []byte {
	length := max((len(name)+4)/4*4, 20)
	d := append([]byte{0x05, 0, byte(length >> 8), byte(length)}, name...)
	return append(d, make([]byte, length-len(name))...)
}

// SPEC_I_PT registers other initiator ports too.
func TestPersistentReserveOut_SpecIPT(t *testing.T) {
	f := newPRFixture(t)
	away := NexusID{InitiatorName: "iqn.2026-11.example.initiator:away", ISID: [6]byte{5: 1}, TargetName: f.target.Name(), TargetPortalGroupTag: 1}
	f.must(f.c, reserve.Register, 0, 0, 0x0C)
	f.out(f.a, reserve.Register, 0, prOutNaming(0, 0x0A, 0,
		nexus.AppendTransportID(nil, f.a.ID), // itself: once is enough
		nexus.AppendTransportID(nil, away),
		nameOnly(strings.ToUpper(f.b.ID.InitiatorName)),
		nexus.AppendTransportID(nil, f.c.ID), // has a key, and keeps it
	)).wantStatus(t, good)
	f.wantKeys(0x0C, 0x0A, 0x0A, 0x0A)
	f.must(f.b, reserve.Reserve, reserve.ExclusiveAccess, 0x0A, 0)
	if key, g := f.keyOf(away), f.generation(); key != 0x0A || g != 2 {
		t.Errorf("key %x, PRGENERATION %d", key, g)
	}
	n := f.target.Attach(away)
	n.unit([8]byte{}).takePending()
	f.must(n, reserve.Register, 0, 0x0A, 0)
}

func TestPersistentReserveOut_SpecIPT_Refused(t *testing.T) {
	f := newPRFixture(t)
	b := nexus.AppendTransportID(nil, f.b.ID)
	list := prOutNaming(0, 0x0A, 0, b)
	for name, tt := range map[string]struct {
		action byte
		list   []byte
		asc    sense.ASC
	}{
		"IGNORE EXISTING KEY":      {reserve.RegisterAndIgnore, list, sense.ASCInvalidFieldInParameterList},
		"length field too small":   {reserve.Register, append(list[:len(list):len(list)], 0, 0, 0, 0), sense.ASCParameterListLengthError},
		"length field missing":     {reserve.Register, list[:24], sense.ASCParameterListLengthError},
		"a TransportID cut":        {reserve.Register, prOutNaming(0, 0x0A, 0, b[:len(b)-4]), sense.ASCInvalidFieldInParameterList},
		"an unknown name":          {reserve.Register, prOutNaming(0, 0x0A, 0, nameOnly("iqn.unknown")), sense.ASCInvalidFieldInParameterList},
		"longer without SPEC_I_PT": {reserve.Register, append(prOutList(0, 0x0A, 0), 0, 0, 0, 0), sense.ASCParameterListLengthError},
		"shorter than the minimum": {reserve.Register, prOutList(0, 0x0A, 0)[:23], sense.ASCParameterListLengthError},
		"none":                     {reserve.Register, nil, sense.ASCParameterListLengthError},
		"APTPL without records":    {reserve.Register, prOutList(0, 0x0A, 0x01), sense.ASCInvalidFieldInParameterList},
	} {
		t.Run(name, func(t *testing.T) {
			f.out(f.a, tt.action, 0, tt.list).wantSense(t, sense.KeyIllegalRequest, tt.asc)
			f.wantKeys()
		})
	}
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.out(f.a, reserve.Register, 0, prOutNaming(0x0A, 0x0A, 0, b)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
}

// ALL_TG_PT.
func TestPersistentReserveOut_AllTGPT(t *testing.T) {
	f := newPRFixture(t)
	f.reconfigure(func(c *Configuration) { c.PortGroups = []PortGroup{{Tag: 1}, {Tag: 2}, {Tag: 9}} })
	for _, n := range []*Nexus{f.a, f.b, f.c} {
		f.wantAttentions(n, sense.ASCAsymmetricAccessStateChanged)
	}
	at := func(tag uint16) NexusID { id := f.a.ID; id.TargetPortalGroupTag = tag; return id }
	f.out(f.a, reserve.Register, 0, prOutList(0, 0x0A, 0x04)).wantStatus(t, good)
	f.wantKeys(0x0A, 0x0A, 0x0A)
	second := f.target.Attach(at(2))
	second.unit([8]byte{}).takePending()
	f.must(second, reserve.Register, 0, 0x0A, 0x22) // this path goes its own way
	f.out(f.a, reserve.Register, 0, prOutList(0x0A, 0, 0x04)).wantStatus(t, good)
	f.wantKeys(0x22)
	f.out(f.a, reserve.RegisterAndIgnore, 0, prOutList(0, 0x33, 0x04)).wantStatus(t, good)
	for _, tag := range []uint16{1, 2, 9} {
		if key := f.keyOf(at(tag)); key != 0x33 {
			t.Errorf("port %d: key %x", tag, key)
		}
	}
	f.out(f.a, reserve.Register, 0, prOutNaming(0, 0x44, 0x04, nexus.AppendTransportID(nil, f.b.ID))).wantStatus(t, conflict)
	f.out(f.b, reserve.Register, 0, prOutNaming(0, 0x44, 0x04, nexus.AppendTransportID(nil, f.c.ID))).wantStatus(t, good)
	f.wantKeys(0x33, 0x33, 0x33, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44)
}

func TestPersistentReserveOut_RegisterAndMove(t *testing.T) {
	for _, unreg := range []byte{0, 0x02} {
		f := newPRFixture(t)
		f.must(f.a, reserve.Register, 0, 0, 0x0A)
		f.must(f.a, reserve.Reserve, reserve.ExclusiveAccess, 0x0A, 0)
		f.out(f.a, reserve.RegisterAndMove, 0, prMoveList(0x0A, 0x0B, unreg, 1, nexus.AppendTransportID(nil, f.b.ID))).wantStatus(t, good)
		f.wantReservation(reserve.ExclusiveAccess, 0x0B)
		if unreg != 0 {
			f.wantKeys(0x0B)
		} else {
			f.wantKeys(0x0A, 0x0B)
		}
		f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
		f.on(f.a, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
	}
}

func TestPersistentReserveOut_RegisterAndMove_Refused(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	b := nexus.AppendTransportID(nil, f.b.ID)
	move := func(n *Nexus, list []byte) result { return f.out(n, reserve.RegisterAndMove, 0, list) }
	move(f.a, prMoveList(0x0A, 0x0B, 0, 1, b)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB) // nothing is reserved
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
	f.must(f.c, reserve.Register, 0, 0, 0x0C)
	move(f.c, prMoveList(0x0C, 0x0B, 0, 1, b)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB) // it is another's
	for name, list := range map[string][]byte{
		"key 0":             prMoveList(0x0A, 0, 0, 1, b),
		"no such port":      prMoveList(0x0A, 0x0B, 0, 2, b),
		"a name only":       prMoveList(0x0A, 0x0B, 0, 1, nameOnly(f.b.ID.InitiatorName)),
		"two":               prMoveList(0x0A, 0x0B, 0, 1, append(b[:len(b):len(b)], b...)),
		"to itself":         prMoveList(0x0A, 0x0B, 0, 1, nexus.AppendTransportID(nil, f.a.ID)),
		"APTPL, not stored": prMoveList(0x0A, 0x0B, 1, 1, b),
	} {
		t.Run(name, func(t *testing.T) {
			move(f.a, list).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
		})
	}
	f.wantKeys(0x0A, 0x0C)
	f.must(f.a, reserve.Release, reserve.WriteExclusive, 0x0A, 0)
	f.must(f.a, reserve.Reserve, reserve.WriteExclusiveAllRegistrants, 0x0A, 0)
	move(f.a, prMoveList(0x0A, 0x0B, 0, 1, b)).wantStatus(t, conflict)
}

func TestPersistentReserveOut_MaxRegistrations(t *testing.T) {
	f := newPRFixture(t)
	for i := range reserve.MaxRegistrations + 1 {
		n := f.a.ID
		n.ISID = [6]byte{0, 0, 0, 1, byte(i >> 8), byte(i)}
		nexus := f.target.Attach(n)
		nexus.unit([8]byte{}).takePending()
		r := f.out(nexus, reserve.Register, 0, prOutList(0, 1, 0))
		if i < reserve.MaxRegistrations {
			r.wantStatus(t, good)
		} else {
			r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInsufficientRegistrationResources)
		}
	}
}
