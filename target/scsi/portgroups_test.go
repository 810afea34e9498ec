package scsi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

func reportTPG(format byte, length uint32) []byte {
	c := make([]byte, 12)
	c[0], c[1] = 0xA3, format<<5|0x0A
	binary.BigEndian.PutUint32(c[6:], length)
	return c
}

func setTPGCDB(length uint32) []byte {
	c := make([]byte, 12)
	c[0], c[1] = 0xA4, 0x0A
	binary.BigEndian.PutUint32(c[6:], length)
	return c
}

// newPathFixture has a target with the portal groups 1 (optimized, preferred), 2
// (not optimized) and 7 (standby). a goes through 1, b through 2, c through 7.
func newPathFixture(t testing.TB) *prFixture {
	f := &prFixture{fixture: newFixture(t)}
	f.target = NewTarget(TargetConfig{Name: f.target.Name(), PortGroups: []PortGroup{
		{Tag: 1, Preferred: true}, {Tag: 2, State: ActiveNonOptimized}, {Tag: 7, State: Standby}}})
	lu, err := NewLogicalUnit(LUConfig{Volume: f.vol, Thin: true})
	if err != nil {
		t.Fatal(err)
	}
	if f.lu = lu; f.target.AddLU(0, lu) != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		nexus **Nexus
		tag   uint16
	}{{&f.a, 1}, {&f.b, 2}, {&f.c, 7}} {
		*p.nexus = f.target.Attach(NexusID{InitiatorName: "iqn.2026-11.example.initiator:a", TargetName: f.target.Name(), TargetPortalGroupTag: p.tag})
		(*p.nexus).unit([8]byte{}).takePending()
	}
	f.nexus = f.a
	return f
}

func (f *prFixture) setTPG(n *Nexus, descriptors ...byte) result {
	f.t.Helper()
	list := append(make([]byte, 4), descriptors...)
	return f.run(request{nexus: n, cdb: setTPGCDB(uint32(len(list))), out: list, expectedOut: -1})
}

// What a target with one portal group reports.
func TestPortGroups_Default(t *testing.T) {
	f := newFixture(t)
	wantHex(t, f.good(reportTPG(0, 255), nil), `
		0000000c
		00                # active/optimized
		0f                # U_SUP, S_SUP, AN_SUP, AO_SUP
		0001              # target port group
		00 00 00 01       # status code 0, one port:
		0000 0001`)
}

func TestReportTargetPortGroups(t *testing.T) {
	f := newPathFixture(t)
	const groups = `
		80 0f 0001 00 00 00 01 0000 0001
		01 0f 0002 00 00 00 01 0000 0002
		02 0f 0007 00 00 00 01 0000 0007`
	for _, n := range []*Nexus{f.a, f.b, f.c} {
		wantHex(t, f.on(n, reportTPG(0, 255)).data, "00000024"+groups)
		wantHex(t, f.on(n, reportTPG(1, 255)).data, "00000028 10 00 0000"+groups)
	}
	wantHex(t, f.good(reportTPG(0, 4), nil), "00000024")
	f.do(reportTPG(2, 255), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
}

func TestSetTargetPortGroups(t *testing.T) {
	f := newPathFixture(t)
	f.setTPG(f.c, 0x02, 0, 0, 1, 0x00, 0, 0, 7).wantStatus(t, good)
	wantHex(t, f.on(f.c, reportTPG(0, 255)).data, `00000024
		82 0f 0001 00 01 00 01 0000 0001
		01 0f 0002 00 00 00 01 0000 0002
		00 0f 0007 00 01 00 01 0000 0007`)
	f.wantAttentions(f.a, sense.ASCAsymmetricAccessStateChanged)
	f.wantAttentions(f.b, sense.ASCAsymmetricAccessStateChanged)
	f.wantAttentions(f.c)
	f.on(f.a, cdb10(0x28, 0, 0, 1)).wantSense(t, sense.KeyNotReady, sense.ASCPortInStandbyState)
	f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
	f.on(f.c, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
	f.setTPG(f.c, 0x02, 0, 0, 1).wantStatus(t, good) // no change: nothing to tell
	f.wantAttentions(f.a)
	f.run(request{nexus: f.a, cdb: setTPGCDB(0)}).wantStatus(t, good)
}

func TestSetTargetPortGroups_Refused(t *testing.T) {
	f := newPathFixture(t)
	for name, descriptors := range map[string][]byte{
		"transitioning":           {0x02, 0, 0, 1, 0x0F, 0, 0, 2},
		"offline":                 {0x0E, 0, 0, 1},
		"reserved state":          {0x05, 0, 0, 1},
		"group that is not there": {0x02, 0, 0, 1, 0x00, 0, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			f.setTPG(f.a, descriptors...).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
			f.on(f.a, cdb10(0x28, 0, 0, 1)).wantStatus(t, good) // the first descriptor had no effect
		})
	}
	f.setTPG(f.a, 0x02, 0, 0).wantSense(t, sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	f.run(request{nexus: f.a, cdb: setTPGCDB(3), out: []byte{0, 0, 0}, expectedOut: -1}).wantSense(t, sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	f.run(request{nexus: f.a, cdb: setTPGCDB(1 << 31)}).wantSense(t, sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
}

// What still works in standby, and while unavailable (SPC-4 r37 5.15.2.4).
func TestPortGroups_InactiveStates(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		cdb                  []byte
		standby, unavailable bool
	}{
		{"TEST UNIT READY", testUnitReady, false, false},
		{"REQUEST SENSE", requestSense, true, true},
		{"INQUIRY", inquiryCDB(0, 0, 96), true, true},
		{"INQUIRY, page 83h", inquiryCDB(1, 0x83, 255), true, true},
		{"REPORT LUNS", reportLUNsCDB(0, 96), true, true},
		{"REPORT TARGET PORT GROUPS", reportTPG(0, 255), true, true},
		{"SET TARGET PORT GROUPS", setTPGCDB(0), true, true},
		{"MODE SENSE(6)", modeSense6(0x3F, 0, 255), true, false},
		{"MODE SENSE(10)", modeSense10(0, 0x3F, 0, 255), true, false},
		{"MODE SELECT(6)", modeSelect6(nil), true, false},
		{"PERSISTENT RESERVE IN", prInCDB(reserve.ReadKeys), true, false},
		{"READ CAPACITY(10)", cdb10(0x25, 0, 0, 0), true, false},
		{"READ CAPACITY(16)", cdb16(0x9E, 0x10, 0, 32), true, false},
		{"READ(10)", cdb10(0x28, 0, 0, 1), false, false},
		{"WRITE(10)", cdb10(0x2A, 0, 0, 0), false, false},
		{"GET LBA STATUS", getLBAStatus(0, 24), false, false},
		{"RESERVE(6)", reserve6, false, false},
		{"REPORT SUPPORTED OPERATION CODES", rsocCDB(0, 0, 0, 255), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newPathFixture(t)
			check := func(allowed bool, asc sense.ASC) {
				t.Helper()
				r := f.on(f.c, tt.cdb)
				if allowed {
					r.wantStatus(t, good)
				} else {
					r.wantSense(t, sense.KeyNotReady, asc)
				}
			}
			check(tt.standby, sense.ASCPortInStandbyState)
			f.setTPG(f.a, byte(Unavailable), 0, 0, 7).wantStatus(t, good)
			f.wantAttentions(f.c, sense.ASCAsymmetricAccessStateChanged)
			check(tt.unavailable, sense.ASCPortInUnavailableState)
		})
	}
}

// A port that takes the place of the configured one, whose own place it leaves to that,
// is followed until a path through that one is back, or an initiator prefers it again.
func TestPortGroups_Failover(t *testing.T) {
	for name, back := range map[string]func(f *prFixture){
		"a path is back": func(f *prFixture) {
			f.target.Detach(f.a)
			f.a = f.target.Attach(f.a.ID)
			f.wantAttentions(f.a, sense.ASCITNexusLossOccurred)
		},
		"set again": func(f *prFixture) { f.setTPG(f.b, byte(ActiveOptimized), 0, 0, 1).wantStatus(t, good) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newPathFixture(t)
			f.setTPG(f.b, byte(ActiveOptimized), 0, 0, 2).wantStatus(t, good)
			f.wantAttentions(f.c, sense.ASCAsymmetricAccessStateChanged)
			wantHex(t, f.on(f.c, reportTPG(0, 255)).data, `00000024
				81 0f 0001 00 02 00 01 0000 0001
				00 0f 0002 00 01 00 01 0000 0002
				02 0f 0007 00 00 00 01 0000 0007`)
			f.wantAttentions(f.a, sense.ASCAsymmetricAccessStateChanged)
			back(f)
			f.wantAttentions(f.c, sense.ASCAsymmetricAccessStateChanged)
			for at, state := range map[int]byte{4: 0x80, 16: 0x01, 28: 0x02} {
				if got := f.on(f.c, reportTPG(0, 255)).data[at]; got != state {
					t.Errorf("group at byte %d: %02Xh, want %02Xh", at, got, state)
				}
			}
		})
	}
}

// What an initiator has set itself, another path does not change.
func TestPortGroups_ExplicitState(t *testing.T) {
	f := newPathFixture(t)
	f.setTPG(f.c, byte(Standby), 0, 0, 1).wantStatus(t, good)
	f.target.Detach(f.a)
	f.a = f.target.Attach(f.a.ID)
	if got := f.on(f.c, reportTPG(0, 255)).data[4]; got != 0x80|byte(Standby) {
		t.Errorf("group 1: %02Xh", got)
	}
}

// Where the configuration decides, there is no SET TARGET PORT GROUPS, and a host is
// notified.
func TestPortGroups_ImplicitOnly(t *testing.T) {
	f := &prFixture{fixture: newFixture(t)}
	f.target = NewTarget(TargetConfig{Name: "iqn.fixed", ImplicitOnly: true, PortGroups: []PortGroup{{Tag: 1, ID: 4}, {Tag: 2, ID: 5, State: ActiveNonOptimized}}})
	free := NewTarget(TargetConfig{Name: "iqn.free", PortGroups: []PortGroup{{Tag: 1, ID: 6}}})
	for _, target := range []*Target{f.target, free} {
		if err := target.AddLU(0, f.lu); err != nil {
			t.Fatal(err)
		}
	}
	nexus := func(target *Target) *Nexus {
		n := target.Attach(NexusID{InitiatorName: "iqn.a", TargetName: target.Name(), TargetPortalGroupTag: 1})
		n.unit([8]byte{}).takePending()
		return n
	}
	n, other := nexus(f.target), nexus(free)
	if d := f.on(n, inquiryCDB(0, 0, 96)).data; d[5]&0x30 != 0x10 {
		t.Errorf("TPGS %02Xh, want implicit", d[5])
	}
	f.setTPG(n, byte(ActiveOptimized), 0, 0, 5).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	if d := f.on(n, rsocCDB(3, 0xA4, 0x0A, 255)).data; d[1]&7 != 1 {
		t.Errorf("REPORT SUPPORTED OPERATION CODES says % x", d)
	}
	if d := f.on(n, rsocCDB(0, 0, 0, 65535)).data; bytes.Contains(d, []byte{0xA4, 0, 0, 0x0A}) {
		t.Error("SET TARGET PORT GROUPS is listed")
	}
	f.target = free // the same logical unit, where initiators may change states: not those
	if d := f.on(other, inquiryCDB(0, 0, 96)).data; d[5]&0x30 != 0x30 {
		t.Errorf("TPGS %02Xh at the other target", d[5])
	}
	f.setTPG(other, byte(ActiveOptimized), 0, 0, 5).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
	f.setTPG(other, byte(Standby), 0, 0, 6).wantStatus(t, good)
}

// A logical unit that several targets have is one device, with their ports.
func TestReportTargetPortGroups_SeveralTargets(t *testing.T) {
	f := &prFixture{fixture: newFixture(t)} // its target has group 1
	second := NewTarget(TargetConfig{Name: "iqn.second", PortGroups: []PortGroup{{Tag: 1, ID: 2, State: Standby}}})
	if err := second.AddLU(0, f.lu); err != nil {
		t.Fatal(err)
	}
	n := second.Attach(NexusID{InitiatorName: "iqn.a", TargetName: second.Name(), TargetPortalGroupTag: 1})
	n.unit([8]byte{}).takePending()
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCAsymmetricAccessStateChanged) // the new group
	const groups = `00000018
		00 0f 0001 00 00 00 01 0000 0001
		02 0f 0002 00 00 00 01 0000 0002`
	wantHex(t, f.good(reportTPG(0, 255), nil), groups)
	first := f.target
	f.target = second
	wantHex(t, f.on(n, reportTPG(0, 255)).data, groups)
	page := f.on(n, inquiryCDB(1, 0x83, 1024)).data
	if !bytes.Contains(page, []byte{0x51, 0x94, 0, 4, 0, 0, 0, 2}) || !bytes.Contains(page, []byte{0x51, 0x95, 0, 4, 0, 0, 0, 2}) ||
		!bytes.Contains(page, []byte("iqn.second,t,0x0001")) {
		t.Errorf("page 83h: %x", page)
	}
	// A registration keeps by which port it came, and moves to one of another target.
	f.out(n, reserve.Register, 0, prOutList(0, 0x0A, 0)).wantStatus(t, good)
	if d := f.on(n, prInCDB(reserve.ReadFullStatus)).data; d[8+19] != 2 {
		t.Errorf("READ FULL STATUS: % x", d)
	}
	f.target = first
	f.nexus = f.attach("iqn.mover")
	f.must(f.nexus, reserve.Register, 0, 0, 0x0B)
	f.must(f.nexus, reserve.Reserve, reserve.WriteExclusive, 0x0B, 0)
	f.out(f.nexus, reserve.RegisterAndMove, 0, prMoveList(0x0B, 0x0C, 2, 2, nexus.AppendTransportID(nil, n.ID))).wantStatus(t, good)
	f.wantReservation(reserve.WriteExclusive, 0x0C)
	if key, holder := f.fullStatus(n.ID); key != 0x0C || !holder {
		t.Errorf("key %x, holder %t", key, holder)
	}
	third := NewTarget(TargetConfig{Name: "iqn.third", PortGroups: []PortGroup{{Tag: 9, ID: 2}}})
	if third.AddLU(0, f.lu) == nil {
		t.Error("a second group 2 was accepted")
	}
}

func TestPortGroups_Refused(t *testing.T) {
	for name, groups := range map[string][]PortGroup{
		"tag 0":         {{Tag: 0}},
		"the same tag":  {{Tag: 1}, {Tag: 1}},
		"transitioning": {{Tag: 1, State: Transitioning}},
	} {
		f := newFixture(t)
		target := NewTarget(TargetConfig{Name: "iqn.t", PortGroups: groups})
		if target.AddLU(0, f.lu) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A host distinguishes its paths by page 83h.
func TestVPD_PortDesignators(t *testing.T) {
	f := newPathFixture(t)
	page := f.on(f.c, inquiryCDB(1, 0x83, 1024)).data
	var port, group []byte
	for d := page[4:]; len(d) > 0; d = d[4+d[3]:] {
		switch d[1] & 0x3F {
		case associationPort<<4 | designatorPort:
			port = d[4:8]
		case associationPort<<4 | designatorPortGroup:
			group = d[4:8]
		}
	}
	wantHex(t, port, "00000007")
	wantHex(t, group, "00000007")
}

// Each change of a path state is logged, with the initiator that asked for it.
func TestPortGroups_Log(t *testing.T) {
	var text bytes.Buffer
	log := logrus.New()
	log.SetOutput(&text)
	f := &prFixture{fixture: newFixture(t)}
	f.target = NewTarget(TargetConfig{Name: "iqn.logged", Log: logrus.NewEntry(log), PortGroups: []PortGroup{{Tag: 1, ID: 5}, {Tag: 2, ID: 6, State: ActiveNonOptimized}}})
	if err := f.target.AddLU(0, f.lu); err != nil {
		t.Fatal(err)
	}
	n := f.target.Attach(NexusID{InitiatorName: "iqn.a", TargetName: "iqn.logged", TargetPortalGroupTag: 2})
	n.unit([8]byte{}).takePending()
	f.setTPG(n, byte(ActiveOptimized), 0, 0, 6).wantStatus(t, good)
	f.setTPG(n, byte(ActiveOptimized), 0, 0, 6).wantStatus(t, good) // no change
	for _, want := range []string{
		`from=nonoptimized implicit=false initiator=iqn.a portal_group=2 target=iqn.logged target_port_group=6 to=optimized`,
		`from=optimized implicit=true initiator=iqn.a portal_group=1 target=iqn.logged target_port_group=5 to=nonoptimized`,
	} {
		if strings.Count(text.String(), want) != 1 {
			t.Errorf("no line, or more, with %s in\n%s", want, text.String())
		}
	}
}
