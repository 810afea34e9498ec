package scsi

import (
	"strings"
	"testing"

	"odx/target/scsi/sense"
)

// viewed is a target with three logical units at LUNs 0 to 2, and a nexus that
// sees LUN 0 as 7, write protected, and LUN 2 as 0.
func viewed(t *testing.T) (f *fixture, narrow *Nexus) {
	t.Helper()
	f = newFixture(t)
	for lun := uint16(1); lun <= 2; lun++ {
		if err := f.target.AddLU(lun, newViewedLU(t, byte(lun))); err != nil {
			t.Fatal(err)
		}
	}
	f.good(reportLUNs, nil) // takes the unit attention about them
	narrow = f.target.AttachWith(NexusID{InitiatorName: "iqn.2026-11.example.initiator:narrow", TargetName: f.target.Name()}, Rights{View: View{7: {LUN: 0, ReadOnly: true}, 0: {LUN: 2}}})
	for _, itl := range *narrow.units.Load() {
		itl.takePending() // power on
	}
	return f, narrow
}

func newViewedLU(t *testing.T, id byte) *LogicalUnit {
	t.Helper()
	lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(testBlocks * 512), ID: [16]byte{id}, Thin: true})
	if err != nil {
		t.Fatal(err)
	}
	return lu
}

var reportLUNs = []byte{opReportLUNs, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}

// A nexus finds logical units where its view has them, and nowhere else.
func TestView_LUNs(t *testing.T) {
	f, narrow := viewed(t)
	wantHex(t, f.run(request{nexus: narrow, cdb: reportLUNs}).data, "00000010 00000000  0000000000000000 0007000000000000")
	for lun, want := range map[uint16]*LogicalUnit{7: f.target.LU(0), 0: f.target.LU(2)} {
		r := f.run(request{nexus: narrow, lun: EncodeLUN(lun), cdb: []byte{opInquiry, 1, 0x80, 0, 255, 0}})
		if got := string(r.data[4:]); got != want.SerialNumber() {
			t.Errorf("LUN %d has serial number %s, want %s", lun, got, want.SerialNumber())
		}
	}
	for _, lun := range []uint16{1, 2} {
		f.run(request{nexus: narrow, lun: EncodeLUN(lun), cdb: make([]byte, 6)}).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
		if r := f.run(request{nexus: narrow, lun: EncodeLUN(lun), cdb: []byte{opInquiry, 0, 0, 0, 36, 0}}); r.data[0] != 0x7F {
			t.Errorf("LUN %d: peripheral qualifier and type %02Xh, want 7Fh", lun, r.data[0])
		}
		if f.target.HasLU(narrow, EncodeLUN(lun)) {
			t.Errorf("LUN %d is there", lun)
		}
	}
}

// An initiator may be let in and see nothing.
func TestView_Empty(t *testing.T) {
	f := newFixture(t)
	n := f.target.AttachWith(NexusID{}, Rights{View: View{}})
	wantHex(t, f.run(request{nexus: n, cdb: reportLUNs}).data, "00000000 00000000")
	f.on(n, make([]byte, 6)).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	f.target.Detach(n)
}

// Every command that changes the medium, including installed ones, is refused on a
// read-only nexus; other nexuses write, and the WP bit is per nexus.
func TestView_ReadOnly(t *testing.T) {
	f, narrow := viewed(t)
	lun := EncodeLUN(7)
	var refused []string
	check := func(op *Operation) {
		if op == nil || !op.Write {
			return
		}
		refused = append(refused, op.Name)
		cdb := make([]byte, len(op.Usage))
		cdb[0], cdb[1] = op.Usage[0], op.Usage[1]&0x1F
		if f.lu.opcodes[cdb[0]].single == op {
			cdb[1] = 0
		}
		t.Run(op.Name, func(t *testing.T) {
			f.run(request{nexus: narrow, lun: lun, cdb: cdb}).wantSense(t, sense.KeyDataProtect, sense.ASCWriteProtected)
		})
	}
	for code := range f.lu.opcodes {
		check(f.lu.opcodes[code].single)
		if actions := f.lu.opcodes[code].actions; actions != nil {
			for _, op := range actions {
				check(op)
			}
		}
	}
	all := strings.Join(refused, ", ")
	for _, name := range []string{"WRITE(6)", "WRITE(16)", "WRITE AND VERIFY(10)", "WRITE SAME(16)", "UNMAP", "COMPARE AND WRITE"} {
		if !strings.Contains(all, name) {
			t.Errorf("%s is not among the commands that write: %s", name, all)
		}
	}
	block := pattern(512, 1)
	f.good(cdb10(0x2A, 0, 5, 1), block)
	if r := f.run(request{nexus: narrow, lun: lun, cdb: cdb10(0x28, 0, 5, 1)}); string(r.data) != string(block) {
		t.Errorf("reading: status %02Xh", r.status)
	}
	const modeSense6 = 0x1A
	for n, want := range map[*Nexus]byte{narrow: dspWP | dspDPOFUA, f.nexus: dspDPOFUA} {
		at := lun
		if n == f.nexus {
			at = EncodeLUN(0)
		}
		if got := f.run(request{nexus: n, lun: at, cdb: []byte{modeSense6, 0, 0x3F, 0, 255, 0}}).data[2]; got != want {
			t.Errorf("device-specific parameter %02Xh, want %02Xh", got, want)
		}
	}
}

// What the copy manager asks about a destination.
func TestNexus_WriteProtected(t *testing.T) {
	f, narrow := viewed(t)
	for lun, want := range map[uint16]error{
		0: sense.New(sense.KeyDataProtect, sense.ASCWriteProtected),
		1: sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported),
		2: nil,
	} {
		got := narrow.WriteProtected(f.target.LU(lun))
		if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
			t.Errorf("LUN %d of the target: %v, want %v", lun, got, want)
		}
		if err := f.nexus.WriteProtected(f.target.LU(lun)); err != nil {
			t.Errorf("LUN %d of the target, on another nexus: %v", lun, err)
		}
	}
}

// A nexus reaches logical units of other targets through those that the same initiator
// has there, not through those of one that has proved something else and goes by the
// same name.
func TestLogicalUnit_NexusFor(t *testing.T) {
	const name = "iqn.2026-11.example.initiator:a"
	for _, c := range []struct {
		what                string
		name, proof, theirs string // of the nexus that asks; the proof of the other
		want                bool
	}{
		{"no proof required", name, "", "", true},
		{"no proof required there", name, "192.0.2.1", "", true},
		{"the same proof", name, "192.0.2.1 x", "192.0.2.1 x", true},
		{"another address", name, "192.0.2.2 x", "192.0.2.1 x", false},
		{"another secret", name, "192.0.2.1 y", "192.0.2.1 x", false},
		{"proof required, none given", name, "", "192.0.2.1 x", false},
		{"another initiator", name + "b", "192.0.2.1 x", "192.0.2.1 x", false},
	} {
		f, elsewhere := newFixture(t), NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:other"})
		lu := newViewedLU(t, 9)
		if err := elsewhere.AddLU(0, lu); err != nil {
			t.Fatal(err)
		}
		reader := elsewhere.AttachWith(NexusID{InitiatorName: name}, Rights{View: View{0: {ReadOnly: true}}, Proof: c.theirs})
		writer := elsewhere.AttachWith(NexusID{InitiatorName: name}, Rights{Proof: c.theirs})
		n := f.target.AttachWith(NexusID{InitiatorName: c.name}, Rights{Proof: c.proof})
		got := lu.NexusFor(n)
		if c.want && got != writer || !c.want && got != nil {
			t.Errorf("%s: nexus %p, reader is %p, writer %p", c.what, got, reader, writer)
		}
		if f.lu.NexusFor(n) != n {
			t.Errorf("%s: nexus does not reach the LUs of its view", c.what)
		}
	}
}

// Neither end of a copy counts as proved any more once one of the nexuses stands for no
// proof; where none is asked for, nothing changes.
func TestNexus_DropProof(t *testing.T) {
	const name = "iqn.2026-11.example.initiator:a"
	for what, c := range map[string]struct {
		theirs      string
		mine, other bool // whose proof is dropped
		want        bool
	}{
		"none":                     {theirs: "192.0.2.1 x", want: true},
		"of the nexus that copies": {theirs: "192.0.2.1 x", mine: true},
		"of the other nexus":       {theirs: "192.0.2.1 x", other: true},
		"no proof required":        {mine: true, want: true},
	} {
		f, elsewhere := newFixture(t), NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:other"})
		lu := newViewedLU(t, 9)
		if err := elsewhere.AddLU(0, lu); err != nil {
			t.Fatal(err)
		}
		other := elsewhere.AttachWith(NexusID{InitiatorName: name}, Rights{Proof: c.theirs})
		n := f.target.AttachWith(NexusID{InitiatorName: name}, Rights{Proof: "192.0.2.1 x"})
		if c.mine {
			n.DropProof()
		}
		if c.other {
			other.DropProof()
		}
		if got := lu.NexusFor(n) == other; got != c.want {
			t.Errorf("%s: reached %v, want %v", what, got, c.want)
		}
		if f.lu.NexusFor(n) != n {
			t.Errorf("%s: nexus does not reach the LUs of its view", what)
		}
	}
}

// Only a nexus whose view has the new logical unit is notified.
func TestView_NewLU(t *testing.T) {
	f, narrow := viewed(t)
	later := f.target.AttachWith(NexusID{}, Rights{View: View{1: {LUN: 1}, 9: {LUN: 3}}})
	f.run(request{nexus: later, lun: EncodeLUN(1), cdb: make([]byte, 6)}).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
	if err := f.target.AddLU(3, newViewedLU(t, 3)); err != nil {
		t.Fatal(err)
	}
	f.run(request{nexus: narrow, cdb: make([]byte, 6)}).wantStatus(t, 0)
	f.run(request{nexus: later, lun: EncodeLUN(1), cdb: make([]byte, 6)}).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
	f.run(request{nexus: later, lun: EncodeLUN(9), cdb: make([]byte, 6)}).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
	f.target.Detach(later)
	if f.target.LU(3).nexus(later) != nil {
		t.Error("nexus still attached to an LU of its view")
	}
}
