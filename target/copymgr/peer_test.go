package copymgr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer/peertest"
	"odx/target/scsi"
	"odx/tokens"
)

// startWithPeer returns a target with logical units A and B as those of start, over a store of
// its own, a server that is its peer, and a token of that: of data, which is returned too.
func startWithPeer(t *testing.T) (b *testbed, a *peertest.Server, token, data []byte) {
	t.Helper()
	a, here := peertest.New(t, "a", peertest.Options{}), peertest.New(t, "b", peertest.Options{})
	here.Know(a)
	data = peertest.Random(1, unitBytes)
	lu := tokens.LU{BlockLength: 512, ReadCapacity: [24]byte{2: 512 >> 8}}
	made, err := a.Tokens.OffloadRead(ctx, tokens.Source{Volume: a.Volume("src", unitBytes, data), LU: lu},
		[]blockdev.Range{{Length: unitBytes}}, tokens.ReadOptions{})
	must.Succeed(t, err)
	b = &testbed{tokens: here.Tokens}
	log := logrus.New()
	log.SetOutput(&b.log)
	b.manager = New(here.Tokens, nil, logrus.NewEntry(log))
	t.Cleanup(func() { must.Succeed(t, b.manager.Close(ctx)) })
	b.target = scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.example.odx:disks"})
	for i, block := range []int{512, 4096} {
		v := here.Volume(fmt.Sprint("volume", i), unitBytes, nil)
		c := scsi.LUConfig{Volume: v, ID: [16]byte{byte(i + 1)}, LogicalBlockLength: block, Thin: true}
		c.Space.Usage = func() (used, left int64) { return unitBytes, 10 * unitBytes }
		unit, err := scsi.NewLogicalUnit(c)
		must.Succeed(t, err)
		must.Succeed(t, b.manager.Install(unit, v.Name()), b.target.AddLU(uint16(i), unit))
		b.volumes = append(b.volumes, v)
	}
	b.nexus = b.attach("iqn.2026-11.example:host")
	return b, a, made.Token[:], data
}

// lives reports whether a server has live tokens.
func lives(a *peertest.Server) bool { return len(a.Tokens.List()) > 0 }

// DEL_TKN of a WRITE USING TOKEN deletes the token of a peer there, once all is written.
func TestPeer_DeleteToken(t *testing.T) {
	b, a, token, data := startWithPeer(t)
	parameters := func(blocks uint32) []byte {
		return with(writeParameters(token, 0, rangeOf{0, blocks}), func(p []byte) { p[2] |= 0x02 })
	}
	behind := with(parameters(unitBytes/512), func(p []byte) { p[11] = 0xFF }) // an offset past its end
	if got := b.writeUsing(lunA, 1, behind); got.code() == "GOOD" || !lives(a) {
		t.Errorf("behind the end of the token: %s, it lives: %v", got.code(), lives(a))
	}
	if got := b.writeUsing(lunA, 2, parameters(unitBytes/512)); got.code() != "GOOD" || lives(a) {
		t.Errorf("%s, it lives: %v", got.code(), lives(a))
	}
	if !bytes.Equal(b.contents(t, lunA), data) {
		t.Error("other bytes")
	}
	if got := b.writeUsing(lunA, 3, parameters(8)); got.code() != "5/23/09" {
		t.Errorf("after it was deleted: %s", got.code())
	}
}

// The token of a peer is the source of an EXTENDED COPY, also to other block lengths and from any
// byte on; DEL_TKN deletes it there.
func TestPeer_ExtendedCopy(t *testing.T) {
	const rodID = 2 // after the logical units
	for _, action := range []byte{0, 1} {
		b, a, token, data := startWithPeer(t)
		deletes := with(rodCSCDOf(0), func(p []byte) { p[23] = 1 })
		if got := b.rodCopy(action, token, deletes, segmentOf{kind: 0x02, source: rodID, destination: 1, count: 16, sourceLBA: unitBytes/512 - 8}); got.code() != "A/0D/02" || !lives(a) {
			t.Errorf("more than it has: %s, it lives: %v", got.code(), lives(a))
		}
		got := b.rodCopy(action, token, deletes,
			segmentOf{kind: 0x02, source: rodID, destination: 1, count: 1024, sourceLBA: 8, destinationLBA: 3},
			segmentOf{kind: 0x0A, source: rodID, destination: 0, count: 12345, sourceLBA: 3, sourceOffset: 17, destinationLBA: 200, destinationOffset: 5})
		if got.code() != "GOOD" || lives(a) {
			t.Fatalf("service action %d: %s, it lives: %v\n%s", action, got.code(), lives(a), b.log.String())
		}
		want := [][]byte{make([]byte, unitBytes), make([]byte, unitBytes)}
		copy(want[1][3*4096:], data[8*512:1032*512])
		copy(want[0][200*512+5:], data[3*512+17:][:12345])
		for lun := range want {
			if !bytes.Equal(b.contents(t, lun), want[lun]) {
				t.Errorf("service action %d: LUN %d has other bytes", action, lun)
			}
		}
		if got := b.rodCopy(action, token, rodCSCDOf(0), segmentOf{kind: 2, source: rodID, destination: 1, count: 8}); got.code() != "5/23/09" {
			t.Errorf("after it was deleted: %s", got.code())
		}
	}
}

// With IMMED the token of a peer is written to the end, although connections break, and the
// report says so; if it ends in between, the report has its sense.
func TestPeer_Immediate(t *testing.T) {
	b, a, token, data := startWithPeer(t)
	var reads atomic.Int64
	a.Through(peertest.Link{Read: func() error {
		if n := reads.Add(1); n%4 == 0 { // the first one opens the token
			return syscall.ECONNRESET
		}
		return nil
	}})
	immediate := func(p []byte) { p[2] |= 0x01 }
	p := with(writeParameters(token, 0, rangeOf{0, unitBytes / 512}), immediate)
	if got := b.writeUsing(lunA, 1, p); got.code() != "GOOD" {
		t.Fatalf("WRITE USING TOKEN: %s", got.code())
	}
	if r := b.awaitEnd(t, lunA, 1); r[5] != copyDone || !bytes.Equal(b.contents(t, lunA), data) {
		t.Errorf("status %02Xh; other bytes: %v\n%s", r[5], !bytes.Equal(b.contents(t, lunA), data), b.log.String())
	}
	a.Through(peertest.Link{})
	id := (*tokens.Token)(token).ID()
	must.Succeed(t, a.Tokens.Delete(ctx, id, tokens.Revoked))
	if got := b.writeUsing(lunA, 2, p); got.code() != "GOOD" {
		t.Fatalf("WRITE USING TOKEN: %s", got.code())
	}
	if r := b.awaitEnd(t, lunA, 2); r[5] != copyDoneWithErrors || !bytes.Contains(r[32:], []byte{0x23, 0x06}) {
		t.Errorf("after it was revoked: % x", r[:64])
	}
}

// A peer that cannot be reached is 5/23/02 for each command at first; one that has served the token
// moments ago is BUSY.
func TestPeer_Away(t *testing.T) {
	b, a, token, _ := startWithPeer(t)
	write := writeParameters(token, 0, rangeOf{0, 8})
	extended := func() answer {
		return b.rodCopy(0, token, rodCSCDOf(0), segmentOf{kind: 2, source: 2, destination: 1, count: 8})
	}
	away := peertest.Link{Dial: func() error { return errors.New("no route") }}
	a.Through(away)
	if w, x := b.writeUsing(lunA, 1, write), extended(); w.code() != "5/23/02" || x.code() != "5/23/02" {
		t.Errorf("at first: %s, %s; want 5/23/02", w.code(), x.code())
	}
	a.Through(peertest.Link{})
	if w, x := b.writeUsing(lunA, 1, write), extended(); w.code() != "GOOD" || x.code() != "GOOD" {
		t.Errorf("%s, %s", w.code(), x.code())
	}
	away.Read = func() error { return syscall.ECONNRESET }
	a.Through(away)
	if w := b.writeUsing(lunA, 1, write); w.code() != "status 08h" {
		t.Errorf("moments later: %s, want BUSY", w.code())
	}
}

// TestPeer_ReportAllRODTokens: an initiator gets the tokens that it has made on a peer, and
// those of no other one; a peer that does not answer costs no more than a bounded time.
func TestPeer_ReportAllRODTokens(t *testing.T) {
	b, a, _, _ := startWithPeer(t)
	v, err := a.Store.Volume("src")
	must.Succeed(t, err)
	made := func(initiator string) []byte {
		o := tokens.ReadOptions{Creator: tokens.Creator{Initiator: initiator, Volume: "src"}}
		r, err := a.Tokens.OffloadRead(ctx, tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: 4096}}, o)
		must.Succeed(t, err)
		return r.Token[:96]
	}
	made("iqn.2026-11.example:other")
	want := append(append([]byte(nil), made("iqn.2026-11.example:host")...), made("iqn.2026-11.example:host")...)
	report := func() []byte { return b.copyIn(lunB, 0x08, 0, 4096).data }
	if p := report(); !bytes.Equal(p[8:], want) {
		t.Errorf("%d bytes, want the management tokens of two of the initiator", len(p))
	}
	if p := b.copyIn(lunB, 0x08, 0, 20).data; len(p) != 20 || binary.BigEndian.Uint32(p) != uint32(4+len(want)) {
		t.Errorf("cut: % x", p)
	}
	a.CutOff(true)
	defer a.CutOff(false)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		began := time.Now()
		p := report()
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("a peer that is away is waited for %v", took)
		}
		if len(p) == 8 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the tokens of a peer that is away are still listed")
		}
	}
}
