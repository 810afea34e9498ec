package iscsi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/target/scsi"
)

// A session has at most the negotiated number of connections, each with its own
// digests, and every command is answered on its connection.
func TestSession_Connections(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		order := b.record()
		m := b.loginMulti(4)
		if _, r, _ := m.tryJoin(9); r.field16(36) != loginTooManyConnections {
			t.Errorf("fifth connection: status %#x", r.field16(36))
		}
		other := b.dial()
		h := other.loginRequest(stageOperational, stageFullFeature)
		h.put16(14, m.conns[0].tsih)
		h.put16(20, 5)
		other.send(h, nil, text("InitiatorName="+testInitiator+"2", wantTarget))
		if r, _ := other.expect(opLoginResponse); r.field16(36) != loginNoSuchSession {
			t.Errorf("another initiator's connection: status %#x", r.field16(36))
		}
		m.sessions(4)
		for lba := range uint32(40) {
			n := int(lba % 4)
			m.conns[n].send(m.write(n, lba, 1), nil, pattern(int(lba), memBlock))
			if r, _ := m.conns[n].expect(opSCSIResponse); r[3] != statusGood {
				t.Fatalf("response %x", *r)
			}
			if got := <-order; got != uint64(lba) {
				t.Fatalf("LBA %d, want %d", got, lba)
			}
			mustEqual(t, "disk", b.disk.at(int(lba)*memBlock, memBlock), pattern(int(lba), memBlock))
		}
		if n := b.disk.nexuses(); n != 1 {
			t.Errorf("%d nexuses, want one for all connections", n)
		}
	})
}

// A connection joins only the target of its session, and cannot change the parameters
// of the session.
func TestSession_JoinOtherNexus(t *testing.T) {
	b := newBench(t, nil, nil)
	m := b.loginMulti(1)
	other := b.dial()
	h := other.loginRequest(stageOperational, stageFullFeature)
	h.put16(14, m.conns[0].tsih)
	h.put16(20, 1)
	other.send(h, nil, text(name, "TargetName="+testTarget+"2"))
	if r, _ := other.expect(opLoginResponse); r.field16(36) != loginCannotInclude {
		t.Errorf("another target: status %#x", r.field16(36))
	}
	i, r, data := m.tryJoin(2, "MaxBurstLength=512", "ErrorRecoveryLevel=0", "MaxRecvDataSegmentLength=1024")
	if r.field16(36) != loginSuccess {
		t.Fatalf("status %#x", r.field16(36))
	}
	i.loggedIn(r, data)
	if i.keys["MaxBurstLength"] != valueReject || i.keys["ErrorRecoveryLevel"] != valueReject || i.keys["HeaderDigest"] != "None" {
		t.Errorf("answers %v", i.keys)
	}
	m.conns = append(m.conns, i)
	i = m.on(1)
	read := i.command(bitRead, 4096, read10(0, 8)...)
	i.send(read, nil, nil)
	for n := range 4 {
		if r, d := i.expect(opDataIn); len(d) != 1024 || r.field32(40) != uint32(n)*1024 {
			t.Errorf("Data-In %x", *r)
		}
	}
}

// A command that arrives early on one connection waits, with its data, for those in
// transit on another, and is answered on its own connection.
func TestSession_OrderAcrossConnections(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		order := b.record()
		m := b.loginMulti(3, "InitialR2T=No")
		data := pattern(1, 2048)
		first := m.read(0, 1)
		write := m.write(1, 2, 4)
		write[1] &^= bitFinal
		ping, last := m.request(2, opNopOut), m.read(2, 6)

		m.conns[2].send(last, nil, nil)
		m.conns[2].send(ping, nil, []byte("ping"))
		m.conns[1].send(write, nil, data[:512])
		m.conns[1].send(dataOutPDU(write, reservedTag, 0, 512, false), nil, data[512:1024])
		for _, n := range []int{1, 2} { // received, but not run
			now := m.request(n, opNopOut|bitImmediate)
			m.conns[n].send(now, nil, nil)
			if r, _ := m.conns[n].expect(opNopIn); r.itt() != now.itt() || r.field32(28) != first.cmdSN() {
				t.Fatalf("NOP-In %x, want one for tag %#x with ExpCmdSN %d", *r, now.itt(), first.cmdSN())
			}
		}
		m.conns[0].send(first, nil, nil)
		m.conns[0].good(first)
		if r, d := m.conns[2].expect(opNopIn); r.itt() != ping.itt() || string(d) != "ping" {
			t.Errorf("NOP-In %x %q", *r, d)
		}
		m.conns[2].good(last)
		m.conns[1].send(dataOutPDU(write, reservedTag, 1, 1024, true), nil, data[1024:])
		if r, _ := m.conns[1].status(write); r[3] != statusGood {
			t.Errorf("response %x", *r)
		}
		for _, want := range []uint64{1, 2, 6} {
			if got := <-order; got != want {
				t.Fatalf("command for LBA %d, want %d", got, want)
			}
		}
		mustEqual(t, "disk", b.disk.at(2*memBlock, 2048), data)
		for n := range 3 {
			m.alive(n)
		}
	})
}

// A Logout closes connections one by one (RFC 7143 11.14.1).
func TestLogout_Connection(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.block()
		defer close(release)
		m := b.loginMulti(4, "ImmediateData=No")
		logout := func(on int, reason byte, cid uint16) byte {
			t.Helper()
			h := m.request(on, opLogout)
			h[1] |= reason
			h.put16(20, cid)
			m.conns[on].send(h, nil, nil)
			r, _ := m.conns[on].expect(opLogoutResponse)
			if r.itt() != h.itt() {
				t.Fatalf("response %x", *r)
			}
			return r[2]
		}
		// Tasks of the connection end with it.
		m.conns[3].send(m.write(3, 0, 1), nil, nil)
		m.conns[3].expect(opR2T)
		m.conns[3].send(m.read(3, 0), nil, nil)
		<-started
		if got := logout(0, logoutCloseConnection, 3); got != logoutClosed {
			t.Errorf("another connection: response %d", got)
		}
		m.conns[3].expectClosed()
		m.sessions(3)
		if s := b.srv.Sessions()[0]; s.Commands != 0 {
			t.Errorf("session %+v", s)
		}
		if got := logout(0, logoutCloseConnection, 3); got != logoutCIDNotFound {
			t.Errorf("a connection that is gone: response %d", got)
		}
		if got := logout(0, logoutRemoveForRecovery, 2); got != logoutNoRecovery {
			t.Errorf("recovery: response %d", got)
		}
		m.sessions(3)
		if got := logout(2, logoutCloseConnection, 2); got != logoutClosed {
			t.Errorf("its own connection: response %d", got)
		}
		m.conns[2].expectClosed()
		m.sessions(2)
		if n := b.disk.nexuses(); n != 1 {
			t.Errorf("%d nexuses", n)
		}
		// The nexus outlives aborted commands that have not returned.
		eventually(t, "the aborted command has returned", func() bool { return b.srv.Sessions()[0].Detached == 0 })
		if got := logout(1, logoutCloseSession, 0); got != logoutClosed {
			t.Errorf("the session: response %d", got)
		}
		if n := b.disk.nexuses(); n != 0 {
			t.Errorf("%d nexuses after the response", n)
		}
		m.conns[0].expectClosed()
		m.conns[1].expectClosed()
	})
}

// A Logout arrives early, and another connection delivers it.
func TestLogout_OutOfOrder(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		m := b.loginMulti(2)
		first, logout := m.read(0, 1), m.request(1, opLogout)
		logout[1] |= logoutCloseConnection
		logout.put16(20, 1)
		m.conns[1].send(logout, nil, nil)
		m.conns[0].send(first, nil, nil)
		m.conns[0].good(first)
		if r, _ := m.conns[1].expect(opLogoutResponse); r.itt() != logout.itt() || r[2] != logoutClosed {
			t.Errorf("response %x", *r)
		}
		m.conns[1].expectClosed()
		m.sessions(1)
		m.alive(0)
	})
}

// The tasks of a lost connection end, its early PDUs may be sent again on another, and the
// session continues.
func TestSession_ConnectionLoss(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.hang()
		m := b.loginMulti(2, "ImmediateData=No")
		m.conns[1].send(m.write(1, 0, 1), nil, nil)
		m.conns[1].expect(opR2T)
		m.conns[1].send(m.read(1, 0), nil, nil)
		<-started
		missing, early := m.read(0, 1), m.read(1, 2)
		m.conns[1].send(early, nil, nil)
		now := m.request(1, opNopOut|bitImmediate)
		m.conns[1].send(now, nil, nil)
		m.conns[1].expect(opNopIn) // early was kept
		m.conns[1].nc.Close()
		m.sessions(1)
		eventually(t, "one command is detached, none outstanding", func() bool {
			s := b.srv.Sessions()[0]
			return s.Commands == 0 && s.Detached == 1
		})
		close(release)
		m.conns[0].send(early, nil, nil)
		m.conns[0].send(missing, nil, nil)
		answered := map[uint32]bool{}
		for range 2 {
			r, _ := m.conns[0].expect(opDataIn)
			answered[r.itt()] = true
		}
		if !answered[missing.itt()] || !answered[early.itt()] {
			t.Errorf("answered %v", answered)
		}
		m.alive(0)
		if got := m.conns[0].maxSN - m.cmdSN + 1; got != 128 {
			t.Errorf("the window has %d places, want all", got)
		}
		m.join(1)
		m.alive(2)
	})
}

// A login with the CID of a connection replaces it (RFC 7143 6.3.4), even the only one.
func TestLogin_ConnectionReinstatement(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("of %d", n), func(t *testing.T) {
			overTransports(t, nil, func(t *testing.T, b *bench) {
				started, release := b.disk.hang()
				defer close(release)
				m := b.loginMulti(n)
				old := n - 1
				m.conns[old].send(m.read(old, 0), nil, nil)
				<-started
				next := m.join(uint16(old))
				m.conns[old].expectClosed()
				m.sessions(n)
				if got := b.disk.nexuses(); got != 1 {
					t.Errorf("%d nexuses", got)
				}
				i := m.on(n)
				h := i.command(0, 0, 0x35)
				next.send(h, nil, nil)
				next.good(h)
			})
		})
	}
	t.Run("of a session for one", func(t *testing.T) {
		b := newBench(t, nil, nil)
		m := &multi{bench: b, conns: []*initiator{b.login()}}
		m.cmdSN = m.conns[0].cmdSN
		m.join(0)
		m.conns[0].expectClosed()
		m.alive(1)
	})
}

// Functions affect the tasks of all connections.
func TestTMF_AcrossConnections(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.block()
		m := b.loginMulti(3, "ImmediateData=No")
		m.conns[1].send(m.write(1, 0, 1), nil, nil)
		r2t, _ := m.conns[1].expect(opR2T)
		runs := m.read(2, 0)
		m.conns[2].send(runs, nil, nil)
		<-started
		if got := m.conns[0].tmfResponse(m.tmf(0, tmfAbortTask, runs)); got != tmfComplete {
			t.Errorf("ABORT TASK: response %d", got)
		}
		m.conns[2].send(m.read(2, 0), nil, nil)
		<-started
		m.respond(1)
		m.respond(2)
		h := m.tmf(0, tmfAbortTaskSet, nil)
		for _, n := range []int{1, 2} {
			m.answerPing(n)
		}
		if got := m.conns[0].tmfResponse(h); got != tmfComplete {
			t.Errorf("ABORT TASK SET: response %d", got)
		}
		d := dataOutPDU(&bhs{}, r2t.ttt(), 0, 0, true) // in transit
		d.put32(16, r2t.itt())
		m.conns[1].send(d, nil, make([]byte, memBlock))
		close(release)
		for n := range 3 {
			m.alive(n)
		}
		if got := m.conns[2].maxSN - m.cmdSN + 1; got != 128 {
			t.Errorf("the window has %d places, want all", got)
		}
	})
}

// respond makes the target send a response on connection n, which remains unacknowledged.
func (m *multi) respond(n int) {
	m.tb.Helper()
	h := m.request(n, opNopOut|bitImmediate)
	m.conns[n].send(h, nil, nil)
	m.conns[n].expect(opNopIn)
}

// answerPing answers the ping with which the target requests an acknowledgement on
// connection n.
func (m *multi) answerPing(n int) {
	m.tb.Helper()
	r, _ := m.conns[n].expect(opNopIn)
	if r.itt() != reservedTag || r.ttt() == reservedTag {
		m.tb.Fatalf("NOP-In %x, want a ping", *r)
	}
	h := m.request(n, opNopOut|bitImmediate)
	h.put32(16, reservedTag)
	h.put32(20, r.ttt())
	h.put32(28, m.conns[n].statSN)
	m.conns[n].send(h, nil, nil)
}

// A function for a task set is performed when the commands before it have arrived on their
// connections, and not at all if they do not arrive (RFC 7143 4.2.3.3).
func TestTMF_WaitsForCommands(t *testing.T) {
	overTransports(t, func(o *Options) { o.AbortTimeout = time.Second }, func(t *testing.T, b *bench) {
		started, release := b.disk.block()
		defer close(release)
		m := b.loginMulti(2)
		one, two := m.read(1, 1), m.read(1, 2)
		h := m.tmf(0, tmfAbortTaskSet, nil)
		after := m.read(0, 3)
		m.conns[1].send(one, nil, nil)
		<-started
		now := m.request(0, opNopOut|bitImmediate)
		m.conns[0].send(now, nil, nil)
		if r, _ := m.conns[0].expect(opNopIn); r.itt() != now.itt() {
			t.Fatalf("%x received before the commands", *r)
		}
		m.respond(1)
		m.conns[0].send(after, nil, nil) // kept until two has arrived; not affected
		m.conns[1].send(two, nil, nil)
		m.answerPing(1)
		if got := m.conns[0].tmfResponse(h); got != tmfComplete {
			t.Errorf("response %d", got)
		}
		eventually(t, "only the command after the function is left", func() bool { return b.srv.Sessions()[0].Commands == 1 })

		m.read(1, 1) // never sent
		h = m.tmf(0, tmfLogicalUnitReset, nil)
		if got := m.conns[0].tmfResponse(h); got != tmfRejected {
			t.Errorf("commands that do not arrive: response %d", got)
		}
	})
}

// Concurrent reads, writes and task management on four connections, each with its own
// delays, read the written data.
func TestSession_SharedStress(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		b.disk.execute = func(_ context.Context, t *scsi.Task) {
			if rand.IntN(50) == 0 {
				<-time.After(time.Duration(rand.IntN(8)) * time.Millisecond)
			}
			b.disk.run(t)
		}
		m := b.loginMulti(4, "InitialR2T=No", "MaxBurstLength=1024", "FirstBurstLength=1024")
		var mu sync.Mutex // guards m
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				i := m.conns[n]
				rng := rand.New(rand.NewPCG(uint64(n), 9))
				for step := range 40 {
					lba, data := uint32(1000*n+rng.IntN(900)), pattern(step, 8*memBlock)
					mu.Lock()
					w := m.write(n, lba, 8)
					mu.Unlock()
					// Concurrently other connections send later commands.
					i.send(w, nil, data[:300])
					for {
						r, _ := i.recv()
						if r.opcode() == opR2T {
							i.answerR2T(w, r, data, 700)
							continue
						}
						if r.opcode() != opSCSIResponse || r.itt() != w.itt() || r[3] != statusGood {
							t.Errorf("response %x", *r)
						}
						break
					}
					mu.Lock()
					i.cmdSN, i.itt = m.cmdSN, m.itt
					h := i.command(bitRead, uint32(len(data)), read10(lba, 8)...)
					m.cmdSN, m.itt = i.cmdSN, i.itt
					mu.Unlock()
					i.send(h, nil, nil)
					mustEqual(t, "read back", i.good(h), data)
				}
			}()
		}
		wg.Wait()
	})
}
