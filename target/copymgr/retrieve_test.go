package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/tokens"
)

func TestHeldData(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	copies := []segmentOf{{kind: 0x0D, count: 2, destinationLBA: 100}, {kind: 2, count: 5, destinationLBA: 200}, {kind: 0x0D, count: 1, sourceLBA: 7, destinationLBA: 300}}
	if a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), copies...)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	want := append(bytes.Clone(data[:1024]), data[7*512:8*512]...)
	if p := b.copyIn(lunA, 0x01, 3, 100).data; len(p) != 100 || binary.BigEndian.Uint32(p) != 1536 {
		t.Errorf("short read of the held data: % x", p)
	}
	if p := b.copyIn(lunA, 0x00, 3, 255).data; p[4] != 0x01 || p[6] != 3 || p[7] != 0 || binary.BigEndian.Uint32(p[8:]) != 8*512 {
		t.Errorf("status % x", p)
	}
	// The LID4 form asks for the same operation, and has its status, too.
	status := b.copyStatus(lunA, 3, 255).data
	p := b.send(ctx, b.nexus, lunA, copyInCDB(0x06, 3, 4096), nil).data
	if int(binary.BigEndian.Uint32(p)) != len(p)-4 || !bytes.Equal(p[4:32], status[4:]) {
		t.Errorf("held data begins with % x, the status is % x", p[:32], status)
	}
	if binary.BigEndian.Uint32(p[32:]) != 1536 || !bytes.Equal(p[36:], want) {
		t.Errorf("held data of %d bytes", len(p)-36)
	}
	if p := b.send(ctx, b.nexus, lunA, copyInCDB(0x06, 3, 4096), nil).data; len(p) != 36 || p[5] != 0x81 || binary.BigEndian.Uint32(p[32:]) != 0 {
		t.Errorf("held data again: % x", p)
	}
	if p := b.copyIn(lunA, 0x01, 3, 4096).data; len(p) != 4 || binary.BigEndian.Uint32(p) != 0 {
		t.Errorf("held data again: %d bytes", len(p))
	}
	if p := b.copyIn(lunA, 0x00, 3, 255).data; p[4] != 0x81 {
		t.Errorf("status % x: want HDD", p)
	}
	if a := b.copyIn(lunA, 0x00, 3, 255); a.code() != "5/24/00" {
		t.Errorf("status reported twice: %s", a.code())
	}
	// More than is held: the latest is kept.
	large := segmentOf{kind: 0x0D, count: 1000, destinationLBA: 1024}
	small := segmentOf{kind: 0x0D, count: 100, sourceLBA: 900, destinationLBA: 1024}
	if a := b.extendedCopy(lunA, 0, lid1Parameters(4, 0, b.cscds(), large, small)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	want = append(bytes.Clone(data[:1000*512]), data[900*512:1000*512]...)
	want = want[len(want)-maxHeldData:]
	if p := b.send(ctx, b.nexus, lunA, copyInCDB(0x06, 4, 1<<20), nil).data; p[5] != 0x81 || !bytes.Equal(p[36:], want) {
		t.Errorf("%d bytes held, status %02Xh, the latest: %v", len(p)-36, p[5], bytes.Equal(p[36:], want))
	}
	for id := range byte(maxHolding + 1) {
		b.extendedCopy(lunA, 0, lid1Parameters(100+id, 0, b.cscds(), copies[0]))
	}
	if p := b.copyIn(lunA, 0x00, 100, 255).data; p[4] != 0x81 {
		t.Errorf("the oldest of too many: % x", p)
	}
	if p := b.copyIn(lunA, 0x01, 101, 4096).data; len(p) != 4+1024 {
		t.Errorf("the next: %d bytes", len(p)-4)
	}
}

func TestRetrieve_LID1(t *testing.T) {
	b := start(t, tokens.Limits{})
	for _, action := range []byte{0x00, 0x01, 0x04} {
		if a := b.copyIn(lunA, action, 1, 255); a.code() != "5/24/00" || a.field() != "cdb 2" {
			t.Errorf("service action %02Xh before any copy: %s %q", action, a.code(), a.field())
		}
	}
	b.extendedCopy(lunA, 0, lid1Parameters(1, 0, b.cscds(), segmentOf{kind: 2, count: 1, destinationLBA: 9}))
	if p := b.copyIn(lunA, 0x04, 1, 255).data; !bytes.Equal(p, make([]byte, 4)) {
		t.Errorf("failure details of what did not fail: % x", p)
	}
	for _, want := range []string{"GOOD", "5/24/00"} {
		if a := b.copyIn(lunA, 0x00, 1, 255); a.code() != want {
			t.Errorf("%s, want %s: the status is reported once", a.code(), want)
		}
	}
	golden(t, "operating-parameters.hex", b.copyIn(lunA, 0x03, 0, 1024).data)
	if p := b.copyIn(lunA, 0x03, 0, 10).data; len(p) != 10 {
		t.Errorf("%d bytes of operating parameters", len(p))
	}
}

// The numbers of running operations: the same for all commands, with one rule
// for two forms of the parameter list.
func TestExtendedCopy_ListIdentifiers(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	s := b.stepMaps(1 << 20)
	two := segmentOf{kind: 2, source: 1, destination: 1, count: 8, destinationLBA: 64}
	if a := b.extendedCopy(lunA, 1, lid4Parameters(7, 0, 1, b.cscds(), two)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	<-s.entered
	if a := b.extendedCopy(lunA, 1, lid4Parameters(7, 0, 0, b.cscds(), two)); a.code() != "5/00/16" {
		t.Errorf("the same form: %s", a.code())
	}
	if a := b.extendedCopy(lunA, 0, lid1Parameters(7, 0, b.cscds(), two)); a.code() != "5/26/00" {
		t.Errorf("the other form: %s", a.code())
	}
	if p := b.copyIn(lunA, 0x00, 7, 255).data; p[4] != 0 {
		t.Errorf("status of a running copy % x", p)
	}
	for _, action := range []byte{0x01, 0x04} {
		if a := b.copyIn(lunA, action, 7, 255); a.code() != "5/24/00" {
			t.Errorf("service action %02Xh of a running copy: %s", action, a.code())
		}
	}
	s.proceed <- struct{}{}
	b.await(lunA, 7)
	if p := b.copyStatus(lunA, 7, 255).data; p[4] != 0x01 || p[5] != 0x01 || p[15] != 0 || binary.BigEndian.Uint64(p[16:]) != 4096 {
		t.Errorf("status % x", p)
	}
}
