package iscsi

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"odx/target/scsi"
)

// TestTask_Scratch: what commands work with is within the budget, one initiator leaves
// some of it to others, and small commands go on.
func TestTask_Scratch(t *testing.T) {
	const budgeted, scratch, sent = 16 << 20, 1 << 20, 20
	b := newBench(t, func(o *Options) { o.BufferBytes = budgeted }, nil)
	var running atomic.Int32
	release := make(chan struct{})
	b.disk.scratch = scratch
	b.disk.execute = func(_ context.Context, t *scsi.Task) {
		if t.OpCode != 0x2f {
			return
		}
		running.Add(1)
		<-release
	}
	settled := func(what string, most int32) int32 {
		t.Helper()
		eventually(t, what, func() bool { return running.Load() > 0 && b.srv.budget.contended() })
		n := running.Load()
		if n > most {
			t.Errorf("%d commands run, %d fit", n, most)
		}
		return n
	}
	verify := func(i *initiator) (commands []*bhs) {
		for range sent {
			h := i.command(0, 0, 0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0)
			i.send(h, nil, nil)
			commands = append(commands, h)
		}
		return commands
	}
	greedy, other := b.login(), b.loginAs("iqn.2026-11.example.odx:other")
	first := verify(greedy)
	alone := settled("commands wait for memory", budgeted*5/8/scratch) // large and medium
	second := verify(other)
	eventually(t, "the other initiator gets memory", func() bool { return running.Load() > alone })
	if held := b.srv.budget.heldBytes(); held > budgeted {
		t.Errorf("%d bytes are held, %d is the limit", held, budgeted)
	}
	other.send(other.command(0, 0, 0x00), nil, nil) // TEST UNIT READY
	if r, _ := other.expect(opSCSIResponse); r[3] != statusGood {
		t.Errorf("response %x", *r)
	}
	close(release)
	for i, commands := range map[*initiator][]*bhs{greedy: first, other: second} {
		for range commands {
			if r, _ := i.expect(opSCSIResponse); r[3] != statusGood {
				t.Errorf("response %x", *r)
			}
		}
	}
}

// TestServer_MaxWorkers: sessions share the workers, and each has one.
func TestServer_MaxWorkers(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxWorkers = 4 }, nil)
	started, release := make(chan string), make(chan struct{})
	b.disk.execute = func(_ context.Context, t *scsi.Task) {
		select {
		case started <- t.Nexus.ID.InitiatorName:
			<-release
		case <-release:
		}
	}
	names := []string{testInitiator, "iqn.2026-11.example.odx:second", "iqn.2026-11.example.odx:third"}
	var all []*initiator
	for _, name := range names {
		i := b.loginAs(name)
		for _, s := range b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer) {
			s.cost[0x35].Store(int32(time.Second)) // not on the reader
		}
		for range 10 {
			i.send(i.command(0, 0, 0x35), nil, nil)
		}
		all = append(all, i)
	}
	got := map[string]int{}
	for len(got) < len(names) {
		select {
		case name := <-started:
			got[name]++
		case <-time.After(patience):
			t.Fatalf("commands of %v run, want some of each initiator", got)
		}
	}
	// Each has one, and more of them only while there are fewer than four.
	if n := b.srv.working.Load(); n > 4+int32(len(names)) {
		t.Errorf("%d workers", n)
	}
	close(release)
	for _, i := range all {
		for range 10 {
			if r, _ := i.expect(opSCSIResponse); r[3] != statusGood {
				t.Errorf("response %x", *r)
			}
		}
	}
}

// TestText_Memory: an answer for which there is no memory is refused, and the connection
// goes on.
func TestText_Memory(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	budget := b.srv.budget
	hog := budget.join("hog")
	var held []charge
	for k := range 100 { // each initiator may hold as much as remains
		sh := budget.join(string(rune('a' + k)))
		for {
			c, ok := budget.take(sh, smallCharge)
			if !ok {
				break
			}
			held = append(held, c)
			budget.resize(sh, charge{c.part, c.n}, 0) // the hog holds it
			c.part.held.Add(c.n)
			hog.held[c.part.index].Add(c.n)
		}
	}
	ask := func() {
		h := i.request(opText)
		h[1] = bitFinal
		h.put32(20, reservedTag)
		i.send(h, nil, text("SendTargets="))
	}
	ask()
	if r, _ := i.expect(opReject); r[2] != rejectOutOfResources {
		t.Errorf("reject %x", *r)
	}
	for _, c := range held {
		budget.release(hog, c)
	}
	ask()
	if _, data := i.expect(opTextResponse); len(data) == 0 {
		t.Error("no answer once there is memory")
	}
}
