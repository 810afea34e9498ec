package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/chap"
	"odx/target/scsi"
)

// digestKeys are the combinations of digests.
var digestKeys = map[string][]string{
	"no digests":    nil,
	"header digest": {"HeaderDigest=CRC32C"},
	"data digest":   {"DataDigest=CRC32C"},
	"both digests":  {"HeaderDigest=CRC32C", "DataDigest=CRC32C"},
}

// TestServer_Suspend: an idle session goes on in another server, with its TSIH and its
// sequence numbers, which the initiator of the test checks.
func TestServer_Suspend(t *testing.T) {
	for name, keys := range digestKeys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			i := r.login(keys...)
			data := pattern(1, 4*memBlock)
			i.writeBlocks(3, data)
			before := r.srv.Sessions()[0]
			for range 3 {
				r.handOver(grace, 1)
				mustEqual(t, "block", i.readBlocks(3, 4), data)
				i.ping([]byte("ping"))
			}
			if after := r.srv.Sessions()[0]; after.TSIH != before.TSIH || !after.Since.Equal(before.Since) || after.TargetName != testTarget {
				t.Errorf("session %+v, want %+v", after, before)
			}
			other := r.loginAs(testInitiator + "2")
			other.alive()
			if other.tsih == i.tsih {
				t.Error("a login got the TSIH of a session")
			}
			i.logout()
		})
	}
}

// ping sends a NOP-Out and checks the response.
func (i *initiator) ping(data []byte) {
	i.tb.Helper()
	h := i.request(opNopOut)
	i.send(h, nil, data)
	r, got := i.expect(opNopIn)
	if r.itt() != h.itt() {
		i.tb.Errorf("ping answered with %x", *r)
	}
	mustEqual(i.tb, "data of a ping", got, data)
}

// TestSuspend_SplitPDU: the handover takes place in the middle of a PDU.
func TestSuspend_SplitPDU(t *testing.T) {
	for name, keys := range digestKeys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			i := r.login(keys...)
			i.alive() // not in its login any more
			// The length is no multiple of four, so that there is padding.
			data := pattern(2, 2*memBlock-1)
			h := i.command(bitWrite, uint32(len(data)), write10(1, 2)...)
			i.cmdSN-- // for each of them below
			raw := encode(h, nil, data, i.headerDigest, i.dataDigest)
			for _, cut := range []int{1, 20, bhsLength, bhsLength + 2, bhsLength + 4, bhsLength + 600, len(raw) - 6, len(raw) - 4, len(raw) - 1} {
				h.put32(24, i.cmdSN)
				raw = encode(h, nil, data, i.headerDigest, i.dataDigest)
				i.write(raw[:cut])
				r.handOver(30*time.Millisecond, 1)
				i.write(raw[cut:])
				if s, _ := i.status(h); s[3] != statusGood {
					t.Fatalf("cut at %d: response %x", cut, *s)
				}
				i.cmdSN++
			}
			mustEqual(t, "block", i.readBlocks(1, 1), data[:memBlock])
		})
	}
}

// TestSuspend_LongPDU: like TestSuspend_SplitPDU, where the data is read to its
// destination without the reader's buffer.
func TestSuspend_LongPDU(t *testing.T) {
	r := newRelay(t, nil)
	i := r.login("DataDigest=CRC32C", "ImmediateData=Yes", "FirstBurstLength=262144")
	i.alive()
	data := pattern(3, 256*memBlock)
	h := i.command(bitWrite, uint32(len(data)), write10(8, 256)...)
	raw := encode(h, nil, data, false, true)
	at := 0
	for _, cut := range []int{70 << 10, 71 << 10, 120 << 10} {
		i.write(raw[at:cut])
		at = cut
		r.handOver(30*time.Millisecond, 1)
	}
	i.write(raw[at:])
	i.good(h)
	mustEqual(t, "blocks", i.readBlocks(8, 256), data)
}

// delay makes a command of the given operation code wait in the device server. running
// is closed when it does, and the command continues when release is called.
func (d *memDisk) delay(op byte) (running chan struct{}, release func()) {
	running, free := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d.execute = func(ctx context.Context, t *scsi.Task) {
		if t.OpCode == op && once.CompareAndSwap(false, true) {
			close(running)
			select {
			case <-free:
			case <-ctx.Done():
				return
			}
		}
		d.run(t)
	}
	return running, func() { close(free) }
}

// TestSuspend_Pipelined: PDUs that arrive while a command is awaited are processed
// afterwards, in their order.
func TestSuspend_Pipelined(t *testing.T) {
	for name, keys := range digestKeys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			running, release := r.disk.delay(0x35)
			i := r.login(append([]string{"InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=4096"}, keys...)...)
			flush := i.command(0, 0, 0x35)
			i.send(flush, nil, nil)
			<-running
			wait := r.beginHandOver(patience, 1)
			data := pattern(4, 4*memBlock)
			var commands []*bhs
			for k := range 8 {
				h := i.command(bitWrite, uint32(len(data)), write10(uint32(16+4*k), 4)...)
				h[1] &^= bitFinal // unsolicited data follows
				i.send(h, nil, data[:memBlock])
				i.send(dataOutPDU(h, reservedTag, 0, memBlock, true), nil, data[memBlock:])
				commands = append(commands, h)
			}
			nop := i.request(opNopOut)
			i.send(nop, nil, []byte("odd"))
			release()
			i.good(flush)
			wait()
			answered := map[uint32]bool{}
			for range len(commands) + 1 {
				s, _ := i.recv()
				answered[s.itt()] = s.opcode() == opNopIn || s.opcode() == opSCSIResponse && s[3] == statusGood
			}
			for _, h := range append(commands, nop) {
				if !answered[h.itt()] {
					t.Errorf("task %#x: no GOOD response", h.itt())
				}
			}
			for k := range commands {
				mustEqual(t, "blocks", i.readBlocks(uint32(16+4*k), 4), data)
			}
		})
	}
}

// TestSuspend_SolicitedData: a WRITE whose data was solicited ends before the handover if
// the data comes, and otherwise closes its connection and no other.
func TestSuspend_SolicitedData(t *testing.T) {
	for _, answered := range []bool{true, false} {
		t.Run(fmt.Sprintf("data comes: %v", answered), func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			other := r.loginAs(testInitiator + "2")
			other.alive()
			i := r.login("ImmediateData=No", "MaxBurstLength=8192", "FirstBurstLength=8192")
			data := pattern(5, 64*memBlock)
			h := i.command(bitWrite, uint32(len(data)), write10(0, 64)...)
			i.send(h, nil, nil)
			r2t, _ := i.expect(opR2T)
			if !answered {
				r.handOver(50*time.Millisecond, 1)
				i.expectClosed()
				other.alive()
				r.loginAs(testInitiator).alive()
				return
			}
			wait := r.beginHandOver(patience, 2)
			read := i.command(bitRead, memBlock, read10(0, 1)...)
			i.send(read, nil, nil) // set aside
			for {
				i.answerR2T(h, r2t, data, 4096)
				s, _ := i.recv()
				if s.opcode() == opSCSIResponse {
					break
				}
				r2t = s
			}
			wait()
			mustEqual(t, "block that was read", i.good(read), data[:memBlock])
			mustEqual(t, "blocks", i.readBlocks(0, 64), data)
			other.alive()
		})
	}
}

// TestSuspend_Refused: connections in a state that is not handed over are closed, others
// go on.
func TestSuspend_Refused(t *testing.T) {
	for name, prepare := range map[string]func(r *relay) (check func()){
		"in its login": func(r *relay) func() {
			in := r.dial()
			h := in.loginRequest(stageOperational, stageOperational)
			in.send(h, nil, text("InitiatorName="+testInitiator+"3", "TargetName="+testTarget))
			in.recv()
			return in.expectClosed
		},
		"silent": func(r *relay) func() { return r.dial().expectClosed },
		"discovery session": func(r *relay) func() {
			in := r.dial()
			in.login("InitiatorName="+testInitiator+"3", "SessionType=Discovery")
			return in.expectClosed
		},
		"text exchange": func(r *relay) func() {
			in := r.loginAs(testInitiator + "3")
			h := in.request(opText)
			h[1] = bitContinue
			in.send(h, nil, []byte("Send"))
			in.expect(opTextResponse)
			return in.expectClosed
		},
		"logged out": func(r *relay) func() {
			in := r.loginAs(testInitiator + "3")
			in.send(in.request(opLogout), nil, nil)
			in.expect(opLogoutResponse)
			return in.expectClosed
		},
		"slow receiver": func(r *relay) func() {
			in := r.loginAs(testInitiator + "3")
			for range 100 {
				in.send(in.command(bitRead, 2048*memBlock, read10(0, 2048)...), nil, nil)
			}
			r.socketFull()
			return in.expectClosed
		},
		"command that hangs": func(r *relay) func() {
			running, _ := r.disk.delay(0x35)
			in := r.loginAs(testInitiator + "3")
			in.send(in.command(0, 0, 0x35), nil, nil)
			<-running
			return in.expectClosed
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, func(o *Options) { o.LogoutTimeout, o.AbortTimeout = patience, patience })
			check := prepare(r)
			i := r.login()
			i.alive()
			began := time.Now()
			r.handOver(50*time.Millisecond, 1)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the handover took %v", took)
			}
			check()
			i.alive()
			eventually(t, "one nexus is left", func() bool { return r.disk.nexuses() == 1 })
		})
	}
}

// TestSuspend_Connections: a session with several connections goes on with all of them,
// and with a command that arrived before the one before it.
func TestSuspend_Connections(t *testing.T) {
	r := newRelay(t, nil)
	m := r.loginMulti(3)
	for n := range 3 {
		m.alive(n)
	}
	r.handOver(grace, 3)
	m.sessions(3)
	first := m.write(1, 40, 1)
	second := m.read(0, 40)
	m.conns[0].send(second, nil, nil)
	eventually(t, "the second command is kept", func() bool { return r.early() == 1 })
	r.handOver(grace, 3)
	data := pattern(6, memBlock)
	m.conns[1].send(first, nil, data)
	m.conns[1].good(first)
	if got := m.conns[0].good(second); len(got) != memBlock {
		t.Errorf("%d bytes", len(got))
	}
	for n := range 3 {
		m.alive(n)
	}
	m.join(3)
	m.alive(3)
}

// early returns the number of PDUs that are kept.
func (r *relay) early() (n int) {
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	for s := range r.srv.sessions {
		s.mu.Lock()
		n += len(s.early)
		s.mu.Unlock()
	}
	return n
}

// TestSuspend_AbortedEarly: a command that was aborted before it arrived stays aborted.
func TestSuspend_AbortedEarly(t *testing.T) {
	r := newRelay(t, nil)
	i := r.login()
	i.alive()
	missing := i.command(bitRead, memBlock, read10(0, 1)...)
	aborted := i.command(bitRead, memBlock, read10(1, 1)...)
	abort := i.tmf(tmfAbortTask, [8]byte{}, aborted)
	if got := i.tmfResponse(abort); got != tmfComplete {
		t.Fatalf("ABORT TASK answered with %d", got)
	}
	r.handOver(grace, 1)
	i.send(missing, nil, nil)
	i.good(missing)
	i.alive() // its CmdSN is next
}

// TestResume_Entitlement: a server that would not admit a login does not continue the
// session.
func TestResume_Entitlement(t *testing.T) {
	refuse := func(string, netip.Addr) (scsi.View, bool) { return nil, false }
	for name, change := range map[string]func(r *relay){
		"access list": func(r *relay) { r.targets[0].Admit = refuse },
		"target":      func(r *relay) { r.targets[0].Name += "2" },
		"group":       func(r *relay) { r.targets[0].PortalGroups = []uint16{8} },
		"redirect":    func(r *relay) { r.targets[0].Redirect = &Redirect{Address: "127.0.0.1:1"} },
		"limit":       func(r *relay) { r.options.MaxConnections = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			a, b := r.login(), r.loginAs(testInitiator+"2")
			a.alive()
			b.alive()
			s := r.suspend(grace)
			change(r)
			want := 2
			if name == "limit" {
				want = 1
			}
			if n := r.resume(s); n != want {
				t.Errorf("%d connections were closed, want %d", n, want)
			}
			b.expectClosed()
			if name == "limit" {
				a.alive()
			} else {
				a.expectClosed()
			}
		})
	}
}

// TestServer_SuspendTwice: a server that was suspended or shut down is over.
func TestServer_SuspendTwice(t *testing.T) {
	r := newRelay(t, nil)
	old := r.srv
	r.handOver(grace, 0)
	if _, err := old.Suspend(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Suspend returned %v, want ErrClosed", err)
	}
	if err := old.Shutdown(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Shutdown returned %v, want ErrClosed", err)
	}
	r.login().alive()
}

// TestSuspend_PeerCloses: a connection that the initiator closes in the meantime ends in the
// server that continues it.
func TestSuspend_PeerCloses(t *testing.T) {
	r := newRelay(t, nil)
	i := r.login()
	i.alive()
	s := r.suspend(grace)
	i.nc.Close()
	if n := r.resume(s); n != 0 {
		t.Errorf("%d connections were closed", n)
	}
	eventually(t, "the session has ended", func() bool { return len(r.srv.Sessions()) == 0 && r.disk.nexuses() == 0 })
}

// TestResume_CHAP: a proven user is not asked again, has the same rights, and keeps the
// session from others; a user that is unknown by now has lost it.
func TestResume_CHAP(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known: %v", known), func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, nil)
			authentication := func(user string) Authentication {
				a, err := chap.New(chap.Config{Users: []chap.User{{Credential: chap.Credential{Name: user, Secret: []byte(chapSecret)}}}})
				if err != nil {
					t.Fatal(err)
				}
				return Authentication{CHAP: a}
			}
			r.demand(authentication(chapUser))
			r.targets[0].Authentication = authentication(chapUser)
			i := r.dial()
			i.step(csgSecurity|toOperational, name, normal, wantTarget, offerCHAP)
			i.step(csgSecurity|toOperational, i.proof(chap.MD5, chapUser, chapSecret)...)
			answer, data := i.step(csgOperational | toFullFeature)
			i.loggedIn(answer, data)
			i.alive()
			before := r.disk.rightsOf(testInitiator)
			s := r.suspend(grace)
			if !known {
				r.targets[0].Authentication = authentication("another")
				if n := r.resume(s); n != 1 {
					t.Errorf("%d connections were closed, want 1", n)
				}
				i.expectClosed()
				return
			}
			if n := r.resume(s); n != 0 {
				t.Errorf("%d connections were closed", n)
			}
			i.alive()
			if after := r.disk.rightsOf(testInitiator); before.Proof == "" || after.Proof != before.Proof {
				t.Errorf("proof %q, want %q", after.Proof, before.Proof)
			}
		})
	}
}

// TestSuspend_Load: sessions with and without digests write solicited and unsolicited
// data, and read it, while servers replace each other.
func TestSuspend_Load(t *testing.T) {
	r := newRelay(t, nil)
	const writers, rounds = 6, 20
	var stop atomic.Bool
	var running sync.WaitGroup
	for k := range writers {
		i := r.loginAs(fmt.Sprintf("%s%d", testInitiator, k), append([]string{"MaxRecvDataSegmentLength=4096", "FirstBurstLength=16384", "MaxBurstLength=16384"},
			[][]string{nil, {"HeaderDigest=CRC32C"}, {"DataDigest=CRC32C", "ImmediateData=No"}}[k%3]...)...)
		i.alive()
		running.Go(func() {
			for n := 0; !stop.Load() && !t.Failed(); n++ {
				data := pattern(n, 96*memBlock) // more than a burst
				h := i.command(bitWrite, uint32(len(data)), write10(uint32(k*128), 96)...)
				first := min(len(data), 16384)
				if k%3 == 2 {
					first = 0
				}
				i.send(h, nil, data[:first])
				for {
					s, _ := i.recv()
					if s.opcode() == opSCSIResponse {
						break
					}
					if s.opcode() != opR2T {
						t.Errorf("received %x", *s)
						return
					}
					i.answerR2T(h, s, data, 8192)
				}
				mustEqual(t, "blocks", i.readBlocks(uint32(k*128), 96), data)
			}
		})
	}
	for range rounds {
		if r.handOver(patience, writers); t.Failed() {
			break
		}
	}
	stop.Store(true)
	running.Wait()
}
