package iscsi

import (
	"context"
	"testing"
	"time"

	"odx/target/scsi"
)

// recorder records the LBAs of commands in the order of Prepare.
type recorder struct {
	*memDisk
	order chan uint64
}

func (r *recorder) Prepare(t *scsi.Task) bool {
	if isRead(t.OpCode) || isWrite(t.OpCode) {
		lba, _ := lbaRange(t.CDB())
		r.order <- lba
	}
	return r.memDisk.Prepare(t)
}

// record makes the bench's target record the order of its commands.
func (b *bench) record() chan uint64 {
	r := &recorder{b.disk, make(chan uint64, 1000)}
	b.srv.conf.Load().targets[0].DeviceServer = r
	return r.order
}

// Commands that arrive out of order wait, with their data, for earlier ones (RFC 7143
// 4.2.2.1).
func TestSession_CmdSNOrder(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		order := b.record()
		i := b.login("InitialR2T=No")
		data := pattern(1, 2048)
		var first []*bhs
		for lba := range uint32(4) {
			first = append(first, i.command(bitRead, memBlock, read10(lba, 1)...))
		}
		write := i.command(bitWrite, 2048, write10(4, 4)...)
		write[1] &^= bitFinal
		last := i.request(opNopOut)

		i.send(last, nil, []byte("ping"))
		i.send(write, nil, data[:512])
		i.send(dataOutPDU(write, reservedTag, 0, 512, false), nil, data[512:1024])
		i.send(dataOutPDU(write, reservedTag, 1, 1024, true), nil, data[1024:])
		for _, n := range []int{3, 1, 2} {
			i.send(first[n], nil, nil)
		}
		// None of these may run yet, but an immediate command does.
		now := i.request(opNopOut | bitImmediate)
		i.send(now, nil, nil)
		if r, _ := i.expect(opNopIn); r.itt() != now.itt() || r.field32(28) != first[0].cmdSN() {
			t.Fatalf("NOP-In %x, want one for tag %#x with ExpCmdSN %d", *r, now.itt(), first[0].cmdSN())
		}
		i.send(first[0], nil, nil)
		answered := map[uint32]bool{}
		for range 6 {
			r, _ := i.recv()
			answered[r.itt()] = true
		}
		for _, h := range append(first, write, last) {
			if !answered[h.itt()] {
				t.Errorf("task %#x (CmdSN %d) was not answered", h.itt(), h.cmdSN())
			}
		}
		for want := range uint64(5) {
			if got := <-order; got != want {
				t.Fatalf("command for LBA %d, want %d", got, want)
			}
		}
		mustEqual(t, "disk", b.disk.at(4*memBlock, 2048), data)
	})
}

// Commands outside the window are silently ignored, and so are duplicates.
func TestSession_CmdSNOutsideWindow(t *testing.T) {
	overTransports(t, func(o *Options) { o.QueueDepth = 4 }, func(t *testing.T, b *bench) {
		order := b.record()
		i := b.login()
		i.alive()
		<-order
		for _, d := range []int32{-1, -2, -1 << 31, 4, 5, 1000} {
			h := i.command(bitRead, memBlock, read10(99, 1)...)
			h.put32(24, i.cmdSN-1+uint32(d))
			i.cmdSN--
			i.send(h, nil, nil)
		}
		dup := i.command(bitWrite, memBlock, write10(98, 1)...)
		dup.put32(24, i.cmdSN) // early, twice
		i.cmdSN--
		i.send(dup, nil, make([]byte, memBlock))
		i.send(dup, nil, make([]byte, memBlock))
		h := i.command(bitRead, memBlock, read10(7, 1)...)
		i.send(h, nil, nil)
		i.good(h)
		i.good(dup)
		i.cmdSN++
		i.alive()
		for _, want := range []uint64{7, 98, 0} {
			if got := <-order; got != want {
				t.Fatalf("command for LBA %d, want %d", got, want)
			}
		}
	})
}

// MaxCmdSN allows QueueDepth outstanding commands.
func TestSession_Window(t *testing.T) {
	overTransports(t, func(o *Options) { o.QueueDepth = 5 }, func(t *testing.T, b *bench) {
		gate := make(chan struct{})
		b.disk.execute = func(_ context.Context, t *scsi.Task) {
			<-gate
			b.disk.run(t)
		}
		i := b.login()
		var sent []*bhs
		for n := range 5 {
			h := i.command(bitRead, memBlock, read10(0, 1)...)
			i.send(h, nil, nil)
			sent = append(sent, h)
			ping := i.request(opNopOut | bitImmediate)
			i.send(ping, nil, nil)
			r, _ := i.expect(opNopIn)
			if free := r.field32(32) - r.field32(28) + 1; free != uint32(4-n) {
				t.Errorf("with %d commands outstanding the window has %d places", n+1, free)
			}
		}
		for n := range sent {
			gate <- struct{}{}
			r, _ := i.expect(opDataIn)
			if free := r.field32(32) - r.field32(28) + 1; free != uint32(n+1) {
				t.Errorf("with %d commands ended the window has %d places", n+1, free)
			}
		}
	})
}

// Immediate commands do not consume CmdSN, and their number is bounded.
func TestSession_ImmediateCommands(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		gate := make(chan struct{})
		b.disk.execute = func(_ context.Context, t *scsi.Task) {
			<-gate
			b.disk.run(t)
		}
		i := b.login()
		immediate := func() *bhs {
			h := i.command(bitRead, memBlock, read10(0, 1)...)
			h[0] |= bitImmediate
			i.cmdSN--
			i.send(h, nil, nil)
			return h
		}
		for range maxImmediate {
			immediate()
		}
		over := immediate()
		r, d := i.expect(opReject)
		if r[2] != rejectTooManyImmediate || (*bhs)(d).itt() != over.itt() {
			t.Fatalf("reject %x %x", *r, d)
		}
		close(gate)
		for range maxImmediate {
			i.expect(opDataIn)
		}
		i.alive()
	})
}

// A command with a tag in use is rejected, and the first task continues.
func TestSession_DuplicateTag(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("ImmediateData=No")
		h := i.command(bitWrite, memBlock, write10(0, 1)...)
		i.send(h, nil, nil)
		r2t, _ := i.expect(opR2T)
		again := i.command(bitRead, memBlock, read10(0, 1)...)
		again.put32(16, h.itt())
		i.send(again, nil, nil)
		if r, _ := i.expect(opReject); r[2] != rejectTaskInProgress {
			t.Fatalf("reject %x", *r)
		}
		i.answerR2T(h, r2t, make([]byte, memBlock), memBlock)
		i.good(h)
		i.alive()
	})
}

// The memory of early PDUs is bounded.
func TestSession_EarlyBound(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	i.cmdSN++ // never sent
	data := make([]byte, 200<<10)
	for range maxEarlyBytes/len(data) + 1 {
		h := i.command(bitWrite, uint32(len(data)), write10(0, 400)...)
		i.send(h, nil, data)
	}
	r, _ := i.expect(opReject)
	if r[2] != rejectProtocolError {
		t.Fatalf("reject %x", *r)
	}
	i.expectClosed()
	b.login().alive()
}

// Commands with both digests, valid and invalid (RFC 7143 7.8).
func TestConn_Digests(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("HeaderDigest=CRC32C,None", "DataDigest=CRC32C", "InitialR2T=No", "MaxBurstLength=1024", "FirstBurstLength=1024")
		data := pattern(4, 2050)
		h := i.command(bitWrite, uint32(len(data)), write10(0, 5)...)
		i.send(h, nil, data[:1021]) // padded
		r, _ := i.expect(opR2T)
		i.answerR2T(h, r, data, 333)
		r, _ = i.expect(opR2T)
		i.answerR2T(h, r, data, 1024)
		if r, _ := i.status(h); r[3] != statusGood {
			t.Fatalf("response %x", *r)
		}
		mustEqual(t, "disk", b.disk.at(0, len(data)), data)

		for _, part := range []string{"immediate data", "Data-Out"} {
			h := i.command(bitWrite, 512, write10(0, 1)...)
			d, immediate := h, make([]byte, 512)
			if part == "Data-Out" {
				i.send(h, nil, nil)
				r, _ := i.expect(opR2T)
				d = dataOutPDU(h, r.ttt(), 0, 0, true)
			}
			b := encode(d, nil, immediate, true, true)
			b[len(b)-1] ^= 1
			i.write(b)
			if r, rejected := i.expect(opReject); r[2] != rejectDataDigest || (*bhs)(rejected).itt() != h.itt() {
				t.Fatalf("%s: reject %x", part, *r)
			}
			if got := i.senseOf(h); got != senseServiceCRC {
				t.Errorf("%s: sense %x", part, got)
			}
		}
		ping := i.request(opNopOut)
		wire := encode(ping, nil, []byte("x"), true, true)
		wire[len(wire)-5] ^= 1 // padding counts too
		i.write(wire)
		if r, _ := i.expect(opReject); r[2] != rejectDataDigest {
			t.Fatalf("reject %x", *r)
		}
		i.alive()

		wire = encode(i.request(opNopOut), nil, nil, true, true)
		wire[bhsLength] ^= 1
		i.write(wire)
		i.expectClosed()
	})
}

// Pings in both directions (RFC 7143 11.18, 11.19).
func TestConn_Nop(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("MaxRecvDataSegmentLength=1024")
		for _, n := range []int{0, 1, 100, 1024, 5000} {
			h := i.request(opNopOut)
			i.send(h, nil, pattern(n, n))
			r, d := i.expect(opNopIn)
			if r.itt() != h.itt() || r.ttt() != reservedTag {
				t.Errorf("NOP-In %x", *r)
			}
			mustEqual(t, "echo", d, pattern(n, min(n, 1024)))
		}
		i.srvPing(b)
	})
}

// srvPing makes the target send a ping, and answers it.
func (i *initiator) srvPing(b *bench) {
	i.tb.Helper()
	for _, c := range b.srv.appendConns(nil) {
		if c.fullFeature.Load() {
			c.ping()
		}
	}
	r, _ := i.expect(opNopIn)
	if r.itt() != reservedTag || r.ttt() == reservedTag {
		i.tb.Fatalf("ping %x", *r)
	}
	h := i.request(opNopOut | bitImmediate)
	h.put32(16, reservedTag)
	h.put32(20, r.ttt())
	i.send(h, nil, nil)
	i.alive()
}

// An initiator that does not answer pings loses its connection, one that answers keeps it.
func TestPinger(t *testing.T) {
	b := newBench(t, func(o *Options) { o.PingInterval, o.PingTimeout = 20e6, 20e6 }, nil)
	dead, alive := b.login(), b.loginAs(testInitiator+"2")
	answered := 0
	for b.disk.nexuses() == 2 {
		r, _ := alive.expect(opNopIn)
		h := alive.request(opNopOut | bitImmediate)
		h.put32(16, reservedTag)
		h.put32(20, r.ttt())
		alive.send(h, nil, nil)
		answered++
	}
	dead.expectClosed()
	alive.isAlive()
	if answered == 0 {
		t.Error("no ping to the responsive initiator")
	}
}

// isAlive is alive for connections on which pings may arrive.
func (i *initiator) isAlive() {
	i.tb.Helper()
	h := i.request(opNopOut)
	i.send(h, nil, nil)
	for {
		if r, _ := i.expect(opNopIn); r.itt() == h.itt() {
			return
		}
	}
}

// TestPinger_SlowReceiver: an initiator that takes what is sent to it, slowly, is not taken
// for dead; one that takes nothing is.
func TestPinger_SlowReceiver(t *testing.T) {
	const silence = 100 * time.Second
	b := newBench(t, func(o *Options) { o.PingInterval, o.PingTimeout = silence, silence }, nil)
	i := b.login()
	s := b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer)[0]
	s.mu.Lock()
	c := s.conns[0]
	s.mu.Unlock()
	const ticks = 1000
	tick := func(g *pinger, moves bool) {
		for range ticks {
			if moves {
				c.out.moved.Add(1)
			}
			g.tick(c, b.srv.checkInterval())
		}
	}
	if b.srv.checkInterval()*ticks < 2*silence {
		t.Fatalf("%v is too short a time", b.srv.checkInterval()*ticks)
	}
	var g pinger
	c.out.bytes.Add(1) // not sent yet
	tick(&g, true)
	i.alive()
	c.out.bytes.Add(-1)
	g = pinger{moved: c.out.moved.Load()}
	tick(&g, false)
	i.expectClosed()
}
