package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/target/scsi"
	"odx/tokens"
)

// I_T nexus loss does not end a background copy, but its report is dropped.
func TestBackground_NexusLoss(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 32})
	s := b.stepMaps(2 * 4096)
	b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 4})))
	lost := b.nexus
	<-s.entered
	b.target.Detach(lost)
	b.nexus = b.attach("iqn.2026-11.example:host")
	if a := b.rodTokenInformation(lunB, 5, 805); a.code() != "5/24/00" {
		t.Errorf("report on a new nexus: %s", a.code())
	}
	s.proceed <- struct{}{}
	s.step()
	b.manager.running.Wait()
	if !bytes.Equal(b.contents(t, lunB)[:4*4096], data[:4*4096]) {
		t.Error("the copy did not go on")
	}
	if n := len(b.manager.operations.running) + len(b.manager.operations.byOwner); n != 0 {
		t.Errorf("%d operations and owners are kept", n)
	}
}

// PREEMPT AND ABORT of another initiator ends a copy with the rights of the one
// that it fences off, also where its command was sent to another logical unit.
func TestBackground_PreemptAndAbort(t *testing.T) {
	reserveOut := func(b *testbed, n *scsi.Nexus, action byte, key, actionKey uint64) {
		t.Helper()
		list := make([]byte, 24)
		binary.BigEndian.PutUint64(list, key)
		binary.BigEndian.PutUint64(list[8:], actionKey)
		cdb := []byte{0x5F, action, 0x05, 0, 0, 0, 0, 0, 24, 0} // Write Exclusive, registrants only
		if a := b.send(ctx, n, lunB, cdb, list); a.code() != "GOOD" {
			t.Fatalf("PERSISTENT RESERVE OUT %d: %s", action, a.code())
		}
	}
	for _, kind := range []string{"WRITE USING TOKEN", "EXTENDED COPY"} {
		b := start(t, tokens.Limits{}).hurried()
		token := b.token(t, lunA, rangeOf{0, 128})
		other := b.attach("iqn.2026-11.example:other")
		const register, reserve, preemptAndAbort = 0, 1, 5
		reserveOut(b, b.nexus, register, 0, 1)
		reserveOut(b, other, register, 0, 2)
		reserveOut(b, b.nexus, reserve, 1, 0)
		b.clearAttentions(other, lunB)
		s := b.stepMaps(4096)
		lun := lunB
		if kind == "WRITE USING TOKEN" {
			b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 16})))
		} else {
			lun = lunA
			b.extendedCopy(lunA, 1, lid4Parameters(5, 0, 1, b.cscds(), segmentOf{kind: 2, source: 1, destination: 2, count: 128}))
		}
		<-s.entered
		canceled := b.canceled(lun, 5)
		preempted := make(chan struct{})
		go func() {
			reserveOut(b, other, preemptAndAbort, 2, 1)
			close(preempted)
		}()
		<-canceled
		b.store.FailWith(nil)
		s.proceed <- struct{}{}
		<-preempted
		b.clearAttentions(b.nexus, lunB)
		if p := b.copyStatus(lun, 5, 255).data; p[5] != 0x60 || p[12] != 0x40 {
			t.Errorf("%s: status % x", kind, p)
		}
	}
}

// An EXTENDED COPY in the background outlives its I_T nexus, too.
func TestExtendedCopy_NexusLoss(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	s := b.stepMaps(1 << 20)
	segments := []segmentOf{{kind: 2, source: 1, destination: 2, count: 8}, {kind: 2, source: 0xFFFF, destination: 0xFFFF, count: 8, destinationLBA: 64}}
	if a := b.extendedCopy(lunA, 1, lid4Parameters(5, 0, 1, b.cscds(), segments...)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	<-s.entered
	b.target.Detach(b.nexus)
	s.proceed <- struct{}{}
	s.step()
	b.manager.running.Wait()
	if !bytes.Equal(b.contents(t, lunB)[:4096], data[:4096]) || !bytes.Equal(b.contents(t, lunA)[64*512:72*512], data[:4096]) {
		t.Error("the copy did not go on")
	}
}
