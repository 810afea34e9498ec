package copymgr

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/target/scsi/sense"
	"odx/tokens"
)

func TestExtendedCopy(t *testing.T) {
	for _, tc := range []struct {
		name     string
		segments []segmentOf
		apply    func(units [][]byte)
	}{
		{"within a logical unit", []segmentOf{{kind: 2, count: 100, sourceLBA: 3, destinationLBA: 1001}},
			func(u [][]byte) { copy(u[0][1001*512:1101*512], u[0][3*512:]) }},
		{"overlapping, forwards", []segmentOf{{kind: 2, count: 100, sourceLBA: 50, destinationLBA: 8}},
			func(u [][]byte) { copy(u[0][8*512:108*512], u[0][50*512:]) }},
		{"overlapping, backwards", []segmentOf{{kind: 2, count: 100, sourceLBA: 8, destinationLBA: 50}},
			func(u [][]byte) { copy(u[0][50*512:150*512], u[0][8*512:]) }},
		{"to larger blocks", []segmentOf{{kind: 2, destination: 1, count: 80, sourceLBA: 5, destinationLBA: 7}},
			func(u [][]byte) { copy(u[1][7*4096:17*4096], u[0][5*512:]) }},
		{"to smaller blocks, counted there", []segmentOf{{kind: 2, flags: 2, source: 1, count: 80, sourceLBA: 5, destinationLBA: 7}},
			func(u [][]byte) { copy(u[0][7*512:87*512], u[1][5*4096:]) }},
		{"out of the store and back", []segmentOf{
			{kind: 2, destination: 2, count: 33, sourceLBA: 1, destinationLBA: 2},
			{kind: 2, source: 2, count: 33, sourceLBA: 2, destinationLBA: 100}},
			func(u [][]byte) {
				copy(u[2][2*512:35*512], u[0][512:])
				copy(u[0][100*512:133*512], u[2][2*512:])
			}},
		{"overlapping outside the store", []segmentOf{{kind: 2, source: 2, destination: 2, count: 1500, sourceLBA: 8, destinationLBA: 50}},
			func(u [][]byte) { copy(u[2][50*512:1550*512], u[2][8*512:]) }},
		{"segments in their order", []segmentOf{
			{kind: 2, count: 1, sourceLBA: 0, destinationLBA: 10},
			{kind: 2, count: 1, sourceLBA: 1, destinationLBA: 0},
			{kind: 2, count: 1, sourceLBA: 10, destinationLBA: 1}},
			func(u [][]byte) {
				a := bytes.Clone(u[0][:512])
				copy(u[0][5120:], a)
				copy(u[0][:512], u[0][512:1024])
				copy(u[0][512:], a)
			}},
		{"bytes", []segmentOf{{kind: 0x0A, destination: 1, count: 12345, sourceLBA: 3, destinationLBA: 2, sourceOffset: 17, destinationOffset: 4001}},
			func(u [][]byte) { copy(u[1][2*4096+4001:][:12345], u[0][3*512+17:]) }},
		{"bytes to a volume of whole blocks", []segmentOf{{kind: 0x0A, destination: 2, count: 1000, sourceLBA: 3, destinationLBA: 2, sourceOffset: 17, destinationOffset: 400}},
			func(u [][]byte) { copy(u[2][2*512+400:][:1000], u[0][3*512+17:]) }},
		{"bytes inside a block of a volume of whole blocks", []segmentOf{{kind: 0x0A, source: 2, destination: 2, count: 20, sourceLBA: 3, destinationLBA: 2, sourceOffset: 17, destinationOffset: 40}},
			func(u [][]byte) { copy(u[2][2*512+40:][:20], u[2][3*512+17:]) }},
		{"nothing", []segmentOf{{kind: 2, sourceLBA: 5, destinationLBA: 6}, {kind: 0x0A}}, func([][]byte) {}},
		{"verification", []segmentOf{{kind: 7, flags: 1, source: 1}}, func([][]byte) {}},
		{"the logical unit itself", []segmentOf{{kind: 2, source: 0xFFFF, destination: 0xFFFF, count: 8, destinationLBA: 64}},
			func(u [][]byte) { copy(u[0][64*512:72*512], u[0]) }},
		{"from a write protected logical unit", []segmentOf{{kind: 2, source: 3, count: 8, destinationLBA: 64}},
			func(u [][]byte) { copy(u[0][64*512:72*512], u[3]) }},
	} {
		for _, action := range []byte{0, 1} {
			b := start(t, tokens.Limits{})
			var units [][]byte
			for lun := range b.volumes {
				units = append(units, b.fill(t, lun, byte(lun+1)))
			}
			tc.apply(units)
			segments := tc.segments
			parameters := lid1Parameters(1, 0, b.cscds(), segments...)
			if action == 1 {
				parameters = lid4Parameters(1, 0, 0, b.cscds(), fromLID1(segments)...)
			}
			if a := b.extendedCopy(lunA, action, parameters); a.code() != "GOOD" {
				t.Errorf("%s (service action %d): %s", tc.name, action, a.code())
				continue
			}
			for lun := range units {
				if !bytes.Equal(b.contents(t, lun), units[lun]) {
					t.Errorf("%s (service action %d): LUN %d differs", tc.name, action, lun)
				}
			}
			p := b.copyStatus(lunA, 1, 255).data
			if p[4] != action || p[5] != 0x01 || int(binary.BigEndian.Uint16(p[24:])) != len(tc.segments) {
				t.Errorf("%s: status % x", tc.name, p)
			}
		}
	}
}

// fromLID1 returns segments for LID4, where the first CSCD descriptor has number 1.
func fromLID1(segments []segmentOf) []segmentOf {
	segments = slices.Clone(segments)
	for i := range segments {
		s := &segments[i]
		s.source, s.destination = (s.source+1)|-(s.source>>15), (s.destination+1)|-(s.destination>>15)
	}
	return segments
}

// Data that does not fill the blocks of the other side: CAT and PAD.
func TestExtendedCopy_InexactSegments(t *testing.T) {
	const lastBlock = 0xAB
	pad := func(c []byte) []byte { return with(c, func(p []byte) { p[28] |= 0x04 }) }
	for _, tc := range []struct {
		name                      string
		sourcePad, destinationPad bool
		segments                  []segmentOf
		want                      string
		blocks                    int // of 4096 bytes written from block 1 on
		bytes                     int // of the source in them
	}{
		{"neither", false, false, []segmentOf{{kind: 2, destination: 1, count: 12, destinationLBA: 1}}, "A/26/0A", 0, 0},
		{"destination padded", false, true, []segmentOf{{kind: 2, destination: 1, count: 12, destinationLBA: 1}}, "GOOD", 2, 6144},
		{"both padded", true, true, []segmentOf{{kind: 2, destination: 1, count: 12, destinationLBA: 1}}, "GOOD", 2, 6144},
		{"source discarded", true, false, []segmentOf{{kind: 2, destination: 1, count: 12, destinationLBA: 1}}, "GOOD", 1, 4096},
		{"concatenated", false, false, []segmentOf{
			{kind: 2, flags: 1, destination: 1, count: 12, destinationLBA: 1},
			{kind: 2, flags: 1, destination: 1, count: 5, sourceLBA: 12, destinationLBA: 2},
			{kind: 2, destination: 1, count: 7, sourceLBA: 17, destinationLBA: 3}}, "GOOD", 3, 3 * 4096},
		{"concatenated, the rest dropped at the end", false, false, []segmentOf{
			{kind: 2, flags: 1, destination: 1, count: 12, destinationLBA: 1}}, "GOOD", 1, 4096},
		{"concatenated, then padded", false, true, []segmentOf{
			{kind: 2, flags: 1, destination: 1, count: 12, destinationLBA: 1},
			{kind: 2, destination: 1, count: 1, sourceLBA: 12, destinationLBA: 2}}, "GOOD", 2, 13 * 512},
		{"counted in the destination", false, false, []segmentOf{
			{kind: 2, flags: 2, destination: 1, count: 2, destinationLBA: 1}}, "GOOD", 2, 8192},
		{"carried, then counted in the destination", false, false, []segmentOf{
			{kind: 2, flags: 1, destination: 1, count: 12, destinationLBA: 1},
			{kind: 2, flags: 2, destination: 1, count: 2, sourceLBA: 12, destinationLBA: 2}}, "GOOD", 3, 3 * 4096},
	} {
		b := start(t, tokens.Limits{})
		source := b.fill(t, lunA, 1)
		want := bytes.Repeat([]byte{lastBlock}, unitBytes)
		if err := b.volumes[lunB].WriteAt(ctx, want, 0); err != nil {
			t.Fatal(err)
		}
		cscds := b.cscds()
		if tc.sourcePad {
			cscds[0] = pad(cscds[0])
		}
		if tc.destinationPad {
			cscds[1] = pad(cscds[1])
		}
		if a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, cscds, tc.segments...)); a.code() != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, a.code(), tc.want)
		}
		clear(want[4096 : 4096+tc.blocks*4096])
		copy(want[4096:], source[:tc.bytes])
		if !bytes.Equal(b.contents(t, lunB), want) {
			t.Errorf("%s: wrong data", tc.name)
		}
	}
}

// Every designator that VPD page 83h has and a descriptor can hold finds its
// logical unit; what the initiator cannot address is not found.
func TestExtendedCopy_Designators(t *testing.T) {
	b := start(t, tokens.Limits{})
	lu := b.target.LU(lunB)
	found := 0
	for _, d := range lu.Designators() {
		if len(d.ID) > 20 {
			continue
		}
		found++
		segments := segmentOf{kind: 7, source: 0}
		if a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, [][]byte{cscdOf(lu, d)}, segments)); a.code() != "GOOD" {
			t.Errorf("designator type %d: %s", d.Type, a.code())
		}
	}
	if found != 3 { // NAA, EUI-64, T10; no SCSI name string can
		t.Errorf("%d designators fit a descriptor", found)
	}
	stranger, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: b.store.NewVolume("x", unitBytes), ID: [16]byte{99}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.manager.Install(stranger, "x"); err != nil {
		t.Fatal(err)
	}
	unreachable := lid1Parameters(1, 0, [][]byte{cscdOf(stranger, stranger.Designators()[0])}, segmentOf{kind: 7})
	if a := b.extendedCopy(lunA, 0, unreachable); a.code() != "A/08/04" {
		t.Errorf("a logical unit of no target: %s", a.code())
	}
	// Through another target the initiator has to be logged in there.
	elsewhere := scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.example.odx:other"})
	if err := elsewhere.AddLU(5, stranger); err != nil {
		t.Fatal(err)
	}
	id := scsi.NexusID{InitiatorName: "iqn.2026-11.example:other", TargetName: elsewhere.Name()}
	elsewhere.Attach(id)
	if a := b.extendedCopy(lunA, 0, unreachable); a.code() != "A/08/04" {
		t.Errorf("a logical unit that another initiator sees: %s", a.code())
	}
	id.InitiatorName = b.nexus.ID.InitiatorName
	own := elsewhere.Attach(id)
	if a := b.extendedCopy(lunA, 0, unreachable); a.code() != "GOOD" {
		t.Errorf("a logical unit of another target: %s", a.code())
	}
	elsewhere.Detach(own)
	if a := b.extendedCopy(lunA, 0, unreachable); a.code() != "A/08/04" {
		t.Errorf("after the logout: %s", a.code())
	}
}

// What is wrong with the parameter list ends the command before anything moves.
func TestExtendedCopy_ParameterChecks(t *testing.T) {
	b := start(t, tokens.Limits{})
	be := binary.BigEndian
	one := [][]byte{b.cscd(lunA)}
	copyOne := segmentOf{kind: 2, count: 1, destinationLBA: 9}
	lid1 := lid1Parameters(1, 0, one, copyOne)
	lid4 := lid4Parameters(1, 0, 0, one, segmentOf{kind: 2, source: 1, destination: 1, count: 1, destinationLBA: 9})
	many := func(n int, d []byte) (all [][]byte) {
		for range n {
			all = append(all, d)
		}
		return all
	}
	for _, tc := range []struct {
		name       string
		action     byte
		parameters []byte
		want       string
		field      string
	}{
		{"no list", 0, nil, "GOOD", ""},
		{"no list", 1, nil, "GOOD", ""},
		{"half a header", 0, lid1[:15], "5/1A/00", ""},
		{"half a header", 1, lid4[:47], "5/1A/00", ""},
		{"CSCD cut", 0, lid1[:16+31], "5/1A/00", ""},
		{"segment cut", 0, lid1[:len(lid1)-1], "5/1A/00", ""},
		{"segment cut", 1, lid4[:len(lid4)-1], "5/1A/00", ""},
		{"segment list too short for its segment", 0, with(lid1, func(p []byte) { p[11]-- }), "5/1A/00", ""},
		{"segment list of gigabytes", 0, with(lid1, func(p []byte) { p[8] = 0xFF }), "5/1A/00", ""},
		{"CSCD list with a rest", 0, with(append(lid1, 0, 0), func(p []byte) { p[3]++ }), "5/1A/00", ""},
		{"too many CSCDs", 0, lid1Parameters(1, 0, many(65, b.cscd(lunA)), copyOne), "5/26/06", ""},
		{"most CSCDs", 0, lid1Parameters(1, 0, many(64, b.cscd(lunA)), copyOne), "GOOD", ""},
		{"too many segments", 0, lid1Parameters(1, 0, one, make257(copyOne)...), "5/26/08", ""},
		{"too much of both", 0, lid1Parameters(1, 0, many(400, b.cscd(lunA)), make257(copyOne)...), "5/1A/00", ""},
		{"CSCD type", 0, with(lid1, func(p []byte) { p[16] = 0xE0 }), "5/26/07", "list 16"},
		{"designator too long", 0, with(lid1, func(p []byte) { p[16+7] = 21 }), "5/26/00", "list 23"},
		{"segment type: stream", 0, with(lid1, func(p []byte) { p[48] = 0x00 }), "5/26/09", "list 48"},
		{"segment type: inline to stream", 0, with(lid1, func(p []byte) { p[48] = 0x04 }), "5/26/09", "list 48"},
		{"segment length", 0, with(lid1, func(p []byte) { p[51]++ }), "5/26/00", "list 50"},
		{"inline data", 0, append(with(lid1, func(p []byte) { p[15] = 4 }), 1, 2, 3, 4), "5/26/0B", ""},
		{"inline data", 1, append(with(lid4, func(p []byte) { p[47] = 4 }), 1, 2, 3, 4), "5/26/0B", ""},
		{"reserved LIST ID USAGE", 0, with(lid1, func(p []byte) { p[1] = 1 << 3 }), "5/26/00", "list 1"},
		{"list id that is none, and not zero", 0, with(lid1, func(p []byte) { p[1] = 3 << 3 }), "GOOD", ""},
		{"list id that is none, and not zero", 1, with(lid4, func(p []byte) { p[1] = 3 << 3 }), "GOOD", ""},
		{"list format", 1, with(lid4, func(p []byte) { p[0] = 0 }), "5/26/00", "list 0"},
		{"header descriptor length", 1, with(lid4, func(p []byte) { p[3] = 0 }), "5/26/00", "list 2"},
		{"header descriptor type", 1, with(lid4, func(p []byte) { p[16] = 0xE4 }), "5/26/00", "list 16"},
		{"IMMED with G_SENSE", 1, with(lid4, func(p []byte) { p[15] = 3 }), "5/24/00", ""},
		{"IMMED without list id", 1, with(lid4, func(p []byte) { p[1], p[15] = 3<<3, 1; be.PutUint32(p[20:], 0) }), "5/24/00", ""},
		{"no list id", 0, with(lid1, func(p []byte) { p[0], p[1] = 0, 3<<3 }), "GOOD", ""},
		{"list id that may be discarded", 0, with(lid1, func(p []byte) { p[1] = 2 << 3 }), "GOOD", ""},
		{"LU ID TYPE and NUL are ignored", 0, with(lid1, func(p []byte) { p[17] = 0xE0 }), "GOOD", ""},
		{"STR and PRIORITY are ignored", 0, with(lid1, func(p []byte) { p[1] |= 0x27 }), "GOOD", ""},
		{"held data without list id", 0, with(lid1, func(p []byte) { p[0], p[1], p[48] = 0, 3<<3, 0x0D }), "5/26/00", "list 48"},
		{"held data without list id", 1, with(lid4, func(p []byte) { p[1], p[80] = 3<<3, 0x0D; be.PutUint32(p[20:], 0) }), "5/26/00", "list 80"},
		{"held data that may be discarded", 0, with(lid1, func(p []byte) { p[1], p[48] = 2<<3, 0x0D }), "GOOD", ""},
	} {
		a := b.extendedCopy(lunA, tc.action, tc.parameters)
		if a.code() != tc.want || a.field() != tc.field {
			t.Errorf("%s (service action %d): %s %q, want %s %q", tc.name, tc.action, a.code(), a.field(), tc.want, tc.field)
		}
	}
}

// G_SENSE asks for sense data with GOOD status.
func TestExtendedCopy_GSense(t *testing.T) {
	b := start(t, tokens.Limits{})
	s := segmentOf{kind: 2, source: 1, destination: 1, count: 1, destinationLBA: 9}
	a := b.extendedCopy(lunA, 1, lid4Parameters(1, 0, 2, b.cscds(), s, s))
	if a.code() != "GOOD" || len(a.sense) != 18 || a.sense[2] != 0x0F || !bytes.Equal(a.sense[12:14], []byte{0, 0x20}) || binary.BigEndian.Uint32(a.sense[8:]) != 2 {
		t.Errorf("%s, sense % x", a.code(), a.sense)
	}
	if a := b.extendedCopy(lunA, 1, lid4Parameters(1, 0, 0, b.cscds(), s, s)); a.code() != "GOOD" || len(a.sense) != 0 {
		t.Errorf("not asked for: %s, sense % x", a.code(), a.sense)
	}
}

func make257(s segmentOf) []segmentOf {
	all := make([]segmentOf, 257)
	for i := range all {
		all[i] = s
	}
	return all
}

// The sense data of a failed segment has its number, the field in its descriptor, and
// the sense data of the logical unit.
func TestExtendedCopy_FailedSegments(t *testing.T) {
	good := segmentOf{kind: 2, count: 1, destinationLBA: 9}
	reserve := func(b *testbed, lun int) {
		b.send(ctx, b.attach("iqn.2026-11.example:other"), lun, []byte{0x16, 0, 0, 0, 0, 0}, nil)
	}
	for _, tc := range []struct {
		name    string
		segment segmentOf
		prepare func(b *testbed)
		want    string
		field   int    // in the segment descriptor; negative: in the parameter list
		third   []byte // 0: from the source, 1: from the destination; status; sense key; ASC; ASCQ
	}{
		{"CSCD id without descriptor", segmentOf{kind: 2, count: 1, destination: 9}, nil, "A/08/04", 6, nil},
		{"source id without descriptor", segmentOf{kind: 2, count: 1, source: 9}, nil, "A/08/04", 4, nil},
		{"reserved CSCD id", segmentOf{kind: 2, count: 1, source: 0xF800}, nil, "A/08/04", 4, nil},
		{"source outside", segmentOf{kind: 2, count: 2, sourceLBA: unitBlocks - 1}, nil, "A/0D/02", 12, nil},
		{"destination outside", segmentOf{kind: 2, count: 2, destinationLBA: unitBlocks - 1}, nil, "A/0D/02", 20, nil},
		{"LBA that overflows", segmentOf{kind: 2, count: 2, destinationLBA: 1<<64 - 1}, nil, "A/0D/02", 20, nil},
		{"bytes outside", segmentOf{kind: 0x0A, count: 512, sourceLBA: unitBlocks - 1, sourceOffset: 1}, nil, "A/0D/02", 12, nil},
		{"write protected destination", segmentOf{kind: 2, count: 1, destination: 3}, nil, "A/0D/01", -112, []byte{1, 2, 7, 0x27, 0}},
		{"reserved source", segmentOf{kind: 2, count: 1, source: 1}, func(b *testbed) { reserve(b, lunB) }, "A/0D/01", -48, []byte{0, 0x18}},
		{"reserved destination", segmentOf{kind: 2, count: 8, destination: 1}, func(b *testbed) { reserve(b, lunB) }, "A/0D/01", -48, []byte{1, 0x18}},
		{"source whose erasure has failed", segmentOf{kind: 2, count: 1, source: 1}, func(b *testbed) { b.failSanitize(lunB) }, "A/0D/01", -48, []byte{0, 2, 3, 0x31, 0x03}},
		{"verification of a unit whose erasure has failed", segmentOf{kind: 7, flags: 1, source: 1}, func(b *testbed) { b.failSanitize(lunB) }, "A/0D/01", -48, []byte{0, 2, 3, 0x31, 0x03}},
		{"store is full", segmentOf{kind: 2, count: 1, destinationLBA: 9}, func(b *testbed) { b.failFrom(2, "Map", blockdev.ErrNoSpace) }, "A/0D/01", -16, []byte{1, 2, 7, 0x27, 0x07}},
		{"damaged source", segmentOf{kind: 2, count: 1, destinationLBA: 9}, func(b *testbed) { b.failFrom(2, "Snapshot", blockdev.ErrCorrupt) }, "A/0D/01", -16, []byte{0, 2, 3, 0x11, 0}},
		{"forbidden by a rule", segmentOf{kind: 2, count: 8, destination: 1}, func(b *testbed) {
			b.manager.Reconfigure(Rules{{To: []string{"volume1"}, Deny: true}})
		}, "A/0D/02", -48, nil},
		{"the logical unit itself is full", segmentOf{kind: 2, count: 1, source: 0xFFFF, destination: 0xFFFF, destinationLBA: 9},
			func(b *testbed) { b.failFrom(2, "Map", blockdev.ErrNoSpace) }, "A/0D/01", 6, []byte{1, 2, 7, 0x27, 0x07}},
	} {
		b := start(t, tokens.Limits{})
		b.fill(t, lunA, 1)
		if tc.prepare != nil {
			tc.prepare(b)
		}
		a := b.extendedCopy(lunA, 0, lid1Parameters(7, 0, b.cscds(), good, tc.segment, good))
		if a.code() != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, a.code(), tc.want)
			continue
		}
		if n := binary.BigEndian.Uint16(a.sense[10:]); n != 1 {
			t.Errorf("%s: segment %d", tc.name, n)
		}
		field := int(binary.BigEndian.Uint16(a.sense[16:]))
		if a.sense[15]&0x20 == 0 {
			field = -field
		}
		if a.sense[15]&^0x20 != 0x80 || field != tc.field {
			t.Errorf("%s: segment pointer %02X %d, want %d", tc.name, a.sense[15], field, tc.field)
		}
		wantForwarded(t, tc.name, a.sense, tc.third)
		if p := b.copyIn(lunA, 0x04, 7, 255).data; p[56] != 0x02 || !bytes.Equal(p[60:], a.sense) || int(binary.BigEndian.Uint16(p[58:])) != len(a.sense) {
			t.Errorf("%s: failure details % x", tc.name, p)
		}
		if p := b.copyIn(lunA, 0x04, 7, 255).data; !bytes.Equal(p, make([]byte, 4)) {
			t.Errorf("%s: the failure details again: % x", tc.name, p)
		}
		if p := b.copyStatus(lunA, 7, 255).data; p[5] != 0x02 || p[25] != 2 {
			t.Errorf("%s: status (LID4) % x", tc.name, p)
		}
		if p := b.copyIn(lunA, 0x00, 7, 255).data; p[4] != 0x02 || p[6] != 2 || binary.BigEndian.Uint32(p[8:]) != 512 {
			t.Errorf("%s: status % x", tc.name, p)
		}
	}
}

// failFrom has a method of the store fail from its nth call on.
func (b *testbed) failFrom(n int, method string, err error) {
	b.store.FailWith(func(op string) error {
		if op == method {
			if n--; n <= 0 {
				return err
			}
		}
		return nil
	})
}

func wantForwarded(t *testing.T, name string, se, third []byte) {
	t.Helper()
	if third == nil {
		if se[8] != 0 || se[9] != 0 || len(se) != 18 {
			t.Errorf("%s: sense of a third party % x", name, se)
		}
		return
	}
	at := int(se[8+third[0]])
	if at != 18 || se[9-third[0]] != 0 || int(se[7]) != len(se)-8 || se[at] != third[1] {
		t.Errorf("%s: sense data % x", name, se)
		return
	}
	if len(third) > 2 && !bytes.Equal([]byte{se[at+3], se[at+13], se[at+14]}, third[2:]) {
		t.Errorf("%s: forwarded sense % x, want % x", name, se[at+1:], third[2:])
	}
}

// The same in descriptor format, as D_SENSE chooses it.
func TestExtendedCopy_ForwardedSense(t *testing.T) {
	se := sense.New(sense.KeyCopyAborted, 0x0D01)
	se.CommandSpecific, se.HasCommandSpecific = 3, true
	se.Forwarded = &sense.Forwarded{Status: scsi.StatusCheckCondition, Sense: sense.New(sense.KeyDataProtect, 0x2700), Destination: true}
	golden(t, "sense-third-party.hex", se.AppendSense(nil, sense.Descriptor))
	golden(t, "sense-third-party-fixed.hex", se.AppendSense(nil, sense.Fixed))
}

// failSanitize leaves a logical unit as a sanitize operation that failed does.
func (b *testbed) failSanitize(lun int) {
	b.store.FailWith(func(op string) error {
		if op == "Unmap" {
			return blockdev.ErrCorrupt
		}
		return nil
	})
	b.send(ctx, b.nexus, lun, []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
	b.store.FailWith(nil)
}

// What the status or the report of an EXTENDED COPY counts survives the process: it is
// written out before, also what residual data of the segment before fills alone, and what
// an error or an abort leaves.
func TestExtendedCopy_WrittenOut(t *testing.T) {
	for name, tc := range map[string]struct {
		segments []segmentOf
		fails    string // the store's call that fails, the second time
		code     string
		count    uint64 // bytes
	}{
		"whole": {segments: []segmentOf{{kind: 2, destination: lunB, count: 16}}, code: "GOOD", count: 8192},
		"of residual data alone": {segments: []segmentOf{
			{kind: 2, flags: 3, source: lunB, destination: lunA, count: 1},
			{kind: 2, flags: 2, source: lunB, destination: lunA, count: 7, destinationLBA: 1},
		}, code: "GOOD", count: 4096},
		"error within a segment":      {segments: []segmentOf{{kind: 2, destination: lunB, count: 16}}, fails: "Map", code: "A/0D/01", count: 4096},
		"error in the second segment": {segments: []segmentOf{{kind: 2, destination: lunB, count: 8}, {kind: 2, destination: lunB, count: 8}}, fails: "Map", code: "A/0D/01", count: 4096},
		"not written out": {segments: []segmentOf{{kind: 2, destination: lunB, count: 8}, {kind: 2, destination: lunB, count: 8}}, fails: "WriteOut",
			code: "A/0D/01", count: 4096},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{})
			b.fill(t, lunA, 1)
			b.fill(t, lunB, 2)
			b.store.MapAtMost(4096)
			n, pending := 0, false
			b.store.FailWith(func(op string) error {
				if op == tc.fails {
					if n++; n == 2 {
						return blockdev.ErrNoSpace
					}
				}
				switch op {
				case "Map", "WriteAt":
					pending = true
				case "WriteOut":
					pending = false
				}
				return nil
			})
			a := b.extendedCopy(lunA, 1, lid4Parameters(1, 0, 0, b.cscds(), fromLID1(tc.segments)...))
			count := binary.BigEndian.Uint64(b.copyStatus(lunA, 1, 255).data[16:])
			if a.code() != tc.code || count != tc.count || b.manager.Stats().ExtendedBytes != count {
				t.Errorf("%s, report of %d bytes, counted %d; want %s, %d", a.code(), count, b.manager.Stats().ExtendedBytes, tc.code, tc.count)
			}
			if pending && tc.fails != "WriteOut" {
				t.Error("written data was not written out")
			}
		})
	}
}
