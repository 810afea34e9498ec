package iscsi

import (
	"context"
	"testing"

	"odx/target/scsi"
)

// A command that aborts tasks (SPC-4 r37 5.12.11.2.7) ends those of another nexus and
// of its own except itself, and does not wait for tasks that hang in the store.
func TestSession_AbortTasks(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.hang()
		defer close(release)
		hang := b.disk.execute
		b.disk.execute = func(ctx context.Context, t *scsi.Task) {
			if t.OpCode != 0x5f { // PERSISTENT RESERVE OUT
				hang(ctx, t)
				return
			}
			for _, s := range b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer) {
				s.AbortTasks(func(t *scsi.Task) bool { return t.Lun == [8]byte{} }, t)
			}
		}
		one, two := b.login(), b.loginAs(testInitiator+"2", "ImmediateData=No")
		waits := two.command(bitWrite, memBlock, write10(0, 1)...)
		two.send(waits, nil, nil)
		two.expect(opR2T)
		for _, i := range []*initiator{one, two} {
			i.send(i.command(bitRead, memBlock, read10(0, 1)...), nil, nil)
			<-started
		}
		h := one.command(0, 0, 0x5f)
		one.send(h, nil, nil)
		for {
			r, _ := one.recv()
			if r.opcode() == opNopIn && r.itt() == reservedTag {
				continue // its own window opened
			}
			if r.itt() != h.itt() || r[3] != statusGood {
				t.Fatalf("response %x", *r)
			}
			break
		}
		if r, _ := two.expect(opNopIn); r.itt() != reservedTag || two.maxSN-two.cmdSN+1 != 128 {
			t.Errorf("NOP-In %x, want one with the new window", *r)
		}
		for _, s := range b.srv.Sessions() {
			if s.Commands != 0 || s.Detached != 1 {
				t.Errorf("session %+v, want one detached command and no other", s)
			}
		}
	})
}
