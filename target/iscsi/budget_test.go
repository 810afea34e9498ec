package iscsi

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// heldBytes returns the held memory of all parts.
func (b *budget) heldBytes() int64 {
	return b.large.held.Load() + b.medium.held.Load() + b.small.held.Load() + b.unsolicited.held.Load()
}

// Shares are limited by what remains free.
func TestBudget_Take(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	full := func(b *budget, name string, n int64) (taken int) {
		sh := b.join(name)
		for {
			if _, ok := b.take(sh, n); !ok {
				return taken
			}
			taken++
		}
	}
	t.Run("one initiator leaves half to others", func(t *testing.T) {
		b := newBudget(256 * mib) // large: 96 MiB, medium: 64 MiB
		if n := full(b, "a", 4*mib); n != 12 {
			t.Errorf("%d times 4 MiB", n)
		}
		if n := full(b, "b", mib); n < 40 {
			t.Errorf("%d times 1 MiB", n)
		}
	})
	t.Run("others get memory", func(t *testing.T) {
		b := newBudget(256 * mib)
		for k := range 8 {
			if n := full(b, fmt.Sprint("a", k), 256*kib); n == 0 {
				t.Errorf("initiator %d gets no memory", k)
			}
		}
	})
	t.Run("large commands leave room for others", func(t *testing.T) {
		b := newBudget(256 * mib)
		for k := range 100 {
			full(b, fmt.Sprint("a", k), 16*mib)
		}
		if n := full(b, "b", mib); n != 32 {
			t.Errorf("%d times 1 MiB", n)
		}
	})
	t.Run("never more than the limit", func(t *testing.T) {
		b := newBudget(256 * mib)
		for k := range 1000 {
			full(b, fmt.Sprint("a", k), int64(1+k)*kib*4)
		}
		if n := b.heldBytes(); n > 256*mib {
			t.Errorf("%d bytes are held", n)
		}
	})
	t.Run("two sessions of one initiator share", func(t *testing.T) {
		b := newBudget(256 * mib)
		if n := full(b, "a", 4*mib) + full(b, "a", 4*mib); n != 12 {
			t.Errorf("%d times 4 MiB", n)
		}
	})
	t.Run("larger than the part", func(t *testing.T) {
		b := newBudget(8 * mib)
		if n := full(b, "a", 16*mib) + full(b, "b", 16*mib); n != 1 {
			t.Errorf("%d commands of 16 MiB at a time", n)
		}
	})
	t.Run("small commands have their own part", func(t *testing.T) {
		b := newBudget(256 * mib)
		for k := range 1000 {
			full(b, fmt.Sprint("a", k), 80*kib)
		}
		sh := b.join("z")
		if _, ok := b.take(sh, 80*kib); ok {
			t.Fatal("larger commands get memory")
		}
		if _, ok := b.take(sh, smallCharge); !ok {
			t.Error("a small command gets no memory")
		}
	})
}

// The initiator that holds least is served first, smaller claims do not overtake, and all
// memory is released.
func TestBudget_Wait(t *testing.T) {
	b := newBudget(256 << 20) // large: 96 MiB
	done := make(chan struct{})
	go func() { defer close(done); b.serve() }()
	defer func() { close(b.stop); <-done }()
	rich, poor, tiny := b.join("rich"), b.join("poor"), b.join("tiny")
	held, ok := b.take(rich, 46<<20)
	if !ok {
		t.Fatal("nothing for the first one")
	}
	other := b.join("other")
	rest, ok := b.take(other, 40<<20)
	if !ok {
		t.Fatal("nothing for the second one")
	}
	served := make(chan string, 3)
	claims := map[string]*claim{}
	wait := func(name string, sh *share, n int64) {
		claims[name] = b.wait(sh, n, func() { served <- name })
	}
	wait("rich", rich, 4<<20)
	wait("poor", poor, 30<<20)
	wait("tiny", tiny, 2<<20)
	if _, ok := b.take(tiny, 2<<20); ok {
		t.Error("a command overtakes queued claims")
	}
	if _, over := b.result(claims["tiny"]); over {
		t.Error("a command overtakes an earlier claim")
	}
	b.release(other, rest)
	for _, want := range []string{"poor", "tiny", "rich"} {
		if want == "rich" { // it holds as much as is free
			b.release(rich, held)
		}
		select {
		case got := <-served:
			if got != want {
				t.Errorf("%s was served, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s was not served", want)
		}
	}
	for name, sh := range map[string]*share{"rich": rich, "poor": poor, "tiny": tiny} {
		got, over := b.result(claims[name])
		if !over {
			t.Errorf("%s: not over", name)
		}
		b.release(sh, got)
	}
	if b.contended() {
		t.Error("claims remain queued")
	}
}

// With concurrent takers, waiters and abandoned claims, no more than the limit is held,
// and nothing at the end.
func TestBudget_Concurrent(t *testing.T) {
	b := newBudget(1 << 20)
	done := make(chan struct{})
	go func() { defer close(done); b.serve() }()
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(k)))
			sh := b.join(fmt.Sprint(k % 5))
			for range 2000 {
				n := int64(1 + rng.IntN(200<<10))
				c, ok := b.take(sh, n)
				if !ok {
					ready := make(chan struct{})
					cl := b.wait(sh, n, func() { close(ready) })
					if rng.IntN(4) == 0 {
						b.abandon(cl)
						continue
					}
					tick := time.NewTicker(time.Millisecond)
				loop:
					for {
						select {
						case <-ready:
							break loop
						case <-tick.C:
							b.recheck() // as the watchdog does
						}
					}
					tick.Stop()
					c, _ = b.result(cl)
				}
				if rng.IntN(3) == 0 {
					c = b.resize(sh, c, c.n/2)
				}
				b.release(sh, c)
			}
			b.leave(fmt.Sprint(k % 5))
		})
	}
	wg.Wait()
	close(b.stop)
	<-done
	if n := b.heldBytes(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
	if len(b.shares) != 0 {
		t.Errorf("%d shares are left", len(b.shares))
	}
}

// Initiators that read and receive nothing hold no more than their share, others continue,
// and the stalled ones lose their connections while memory is short.
func TestMemory_StalledReaders(t *testing.T) {
	const limit, greedy = 8 << 20, 12
	b := newBench(t, func(o *Options) {
		o.BufferBytes, o.StallTimeout = limit, 300*time.Millisecond
	}, nil)
	b.disk.put(0, pattern(0, 2<<20))
	for k := range greedy {
		i := b.dial()
		i.isid[5] = byte(k)
		i.login(fmt.Sprintf("InitiatorName=%s%d", testInitiator, k), wantTarget)
		for range 32 {
			h := i.command(bitRead, 2<<20, read10(0, 4096)...)
			i.send(h, nil, nil)
		}
	}
	eventually(t, "memory is short", func() bool { return b.srv.budget.contended() })
	if n := b.srv.budget.heldBytes(); n > limit {
		t.Errorf("%d bytes are held, %d is the limit", n, limit)
	}
	good := b.loginAs(testInitiator + ":good")
	good.alive()
	h := good.command(bitRead, 1<<20, read10(0, 2048)...)
	good.send(h, nil, nil)
	good.good(h)
	data := pattern(3, 512<<10)
	for n := range 8 {
		h := good.command(bitWrite, uint32(len(data)), write10(uint32(n), 1024)...)
		good.send(h, nil, nil)
		for {
			r, _ := good.recv()
			if r.opcode() == opSCSIResponse {
				if r[3] != statusGood {
					t.Fatalf("status %#x", r[3])
				}
				break
			}
			good.answerR2T(h, r, data, 64<<10)
		}
	}
	eventually(t, "the greedy have lost their connections", func() bool { return len(b.srv.Sessions()) == 1 })
	good.alive()
}

// An initiator that sends no solicited Data-Out does not keep the memory, and does not
// delay task management and commands without data.
func TestMemory_StalledWriters(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.BufferBytes, o.StallTimeout, o.FirstBurstLength = 1<<20, 300*time.Millisecond, 4096
	}, nil)
	i := b.login("InitialR2T=No", "FirstBurstLength=4096", "MaxOutstandingR2T=1")
	var busy, asked int
	const commands = 100
	for n := range commands {
		h := i.command(bitWrite, 256<<10, write10(uint32(n), 512)...)
		i.send(h, nil, pattern(n, 4096))
	}
	ping := i.request(opNopOut | bitImmediate)
	i.send(ping, nil, nil)
	for over := false; !over; {
		r, _ := i.recv()
		switch {
		case r.opcode() == opR2T:
			asked++
		case r.opcode() == opSCSIResponse && r[3] == statusBusy:
			busy++
		case r.opcode() == opNopIn && r.itt() == ping.itt():
			over = true
		default:
			t.Fatalf("received %x", *r)
		}
	}
	if asked == 0 || busy == 0 || asked+busy >= commands {
		t.Errorf("%d commands asked for data, %d were BUSY, of %d", asked, busy, commands)
	}
	h := i.command(0, 0, 0, 0, 0, 0, 0, 0) // TEST UNIT READY
	h[0] |= bitImmediate
	i.cmdSN--
	i.send(h, nil, nil)
	if r, _ := i.expect(opSCSIResponse); r[3] != statusGood {
		t.Errorf("TEST UNIT READY: status %#x", r[3])
	}
	i.expectClosed()
	b.login().alive()
}

// A peer that sends pings and receives no response has a bounded number of responses
// queued.
func TestMemory_UnwindowedPDUs(t *testing.T) {
	b := newBench(t, func(o *Options) { o.BufferBytes = 8 << 20 }, nil)
	i := b.login()
	var c *conn
	for _, c = range b.srv.appendConns(nil) {
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		h := i.request(opNopOut | bitImmediate)
		one := encode(h, nil, pattern(0, 8192), false, false)
		for range 4000 {
			if _, err := i.nc.Write(one); err != nil {
				return
			}
		}
	}()
	eventually(t, "the reader waits for the peer", func() bool { return c.notReading.Load() })
	if n := c.out.unwindowed.Load(); n > maxUnwindowed+64<<10 {
		t.Errorf("%d bytes wait for the peer", n)
	}
	i.nc.Close()
	<-stop
}
