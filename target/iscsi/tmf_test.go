package iscsi

import (
	"context"
	"errors"
	"testing"
	"time"

	"odx/target/scsi"
)

// tmf sends a task management request and returns its tag.
func (i *initiator) tmf(function byte, lun [8]byte, ref *bhs) *bhs {
	i.tb.Helper()
	h := i.request(opTMFRequest | bitImmediate)
	h[1] |= function
	copy(h[8:], lun[:])
	if ref != nil {
		h.put32(20, ref.itt())
		h.put32(32, ref.cmdSN())
	}
	i.send(h, nil, nil)
	return h
}

// tmfResponse reads the response to h.
func (i *initiator) tmfResponse(h *bhs) byte {
	i.tb.Helper()
	r, _ := i.expect(opTMFResponse)
	if r.itt() != h.itt() {
		i.tb.Fatalf("task management response %x", *r)
	}
	return r[2]
}

// block makes commands run until their context ends or release is closed.
func (d *memDisk) block() (started chan struct{}, release chan struct{}) {
	started, release = make(chan struct{}, 1000), make(chan struct{})
	d.execute = func(ctx context.Context, t *scsi.Task) {
		started <- struct{}{}
		select {
		case <-ctx.Done():
		case <-release:
			d.run(t)
		}
	}
	return started, release
}

// hang makes commands run until release is closed and ignore their context: the store
// stalls.
func (d *memDisk) hang() (started chan struct{}, release chan struct{}) {
	started, release = make(chan struct{}, 1000), make(chan struct{})
	d.execute = func(_ context.Context, t *scsi.Task) {
		if t.OpCode == 0x35 { // SYNCHRONIZE CACHE still works
			return
		}
		started <- struct{}{}
		<-release
		d.run(t)
	}
	return started, release
}

// Commands are aborted in each of their states (RFC 7143 11.5.1).
func TestTMF_AbortTask(t *testing.T) {
	overTransports(t, func(o *Options) { o.Workers = 1 }, func(t *testing.T, b *bench) {
		started, release := b.disk.block()
		i := b.login("ImmediateData=No")

		h := i.command(bitWrite, memBlock, write10(0, 1)...)
		i.send(h, nil, nil)
		r2t, _ := i.expect(opR2T)
		abort := i.tmf(tmfAbortTask, [8]byte{}, h)
		if got := i.tmfResponse(abort); got != tmfComplete {
			t.Errorf("waits for Data-Out: response %d", got)
		}
		i.answerR2T(h, r2t, make([]byte, memBlock), 100) // sent before the abort

		running := i.command(bitRead, memBlock, read10(0, 1)...)
		i.send(running, nil, nil)
		<-started
		queued := i.command(bitRead, memBlock, read10(0, 1)...)
		i.send(queued, nil, nil)
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, queued)); got != tmfComplete {
			t.Errorf("queued: response %d", got)
		}
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{7: 1}, running)); got != tmfTaskDoesNotExist {
			t.Errorf("another LUN: response %d", got)
		}
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, running)); got != tmfComplete {
			t.Errorf("running: response %d", got)
		}
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, running)); got != tmfTaskDoesNotExist {
			t.Errorf("aborted before: response %d", got)
		}
		close(release)
		i.alive()
		if got := i.maxSN - i.cmdSN + 1; got != 128 {
			t.Errorf("the window has %d places, want all", got)
		}
	})
}

// A missing command before the request counts as received; a kept one does not run.
func TestTMF_AbortTaskOutOfOrder(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		order := b.record()
		i := b.login()
		missing := i.command(bitRead, memBlock, read10(1, 1)...)
		early := i.command(bitWrite, memBlock, write10(2, 1)...)
		i.send(early, nil, make([]byte, memBlock))
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, early)); got != tmfComplete {
			t.Errorf("early command: response %d", got)
		}
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, missing)); got != tmfComplete {
			t.Errorf("missing command: response %d", got)
		}
		future := *missing
		future.put32(24, i.cmdSN+5)
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, &future)); got != tmfTaskDoesNotExist {
			t.Errorf("command after the request: response %d", got)
		}
		i.alive()
		if got := <-order; got != 0 {
			t.Errorf("command for LBA %d ran", got)
		}
	})
}

// The functions end the tasks of one session, or of all, and notify the device server.
func TestTMF_Resets(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		for _, c := range []struct {
			name            string
			function        byte
			lun             [8]byte
			response        byte
			ends, others    bool // whose tasks
			resets, cleared int
		}{
			{"ABORT TASK SET", tmfAbortTaskSet, [8]byte{}, tmfComplete, true, false, 0, 0},
			{"CLEAR TASK SET", tmfClearTaskSet, [8]byte{}, tmfComplete, true, true, 0, 1},
			{"LOGICAL UNIT RESET", tmfLogicalUnitReset, [8]byte{}, tmfComplete, true, true, 1, 0},
			{"TARGET WARM RESET", tmfTargetWarmReset, [8]byte{}, tmfComplete, true, true, 1, 0},
			{"unknown LUN", tmfLogicalUnitReset, [8]byte{1: 9}, tmfLUNDoesNotExist, false, false, 0, 0},
			{"QUERY TASK", tmfQueryTask, [8]byte{}, tmfNotSupported, false, false, 0, 0},
			{"QUERY TASK SET", 10, [8]byte{}, tmfNotSupported, false, false, 0, 0},
			{"I_T NEXUS RESET", 11, [8]byte{}, tmfNotSupported, false, false, 0, 0},
			{"QUERY ASYNCHRONOUS EVENT", tmfQueryAsyncEvent, [8]byte{}, tmfNotSupported, false, false, 0, 0},
			{"CLEAR ACA", tmfClearACA, [8]byte{}, tmfNotSupported, false, false, 0, 0},
			{"TASK REASSIGN", tmfTaskReassign, [8]byte{}, tmfReassignNotSupported, false, false, 0, 0},
			{"no function", 77, [8]byte{}, tmfRejected, false, false, 0, 0},
		} {
			started, release := b.disk.block()
			resets, cleared := b.disk.counts()
			one, two := b.login("ImmediateData=No"), b.loginAs(testInitiator+"2", "ImmediateData=No")
			var waits, runs []*bhs
			for _, i := range []*initiator{one, two} {
				w := i.command(bitWrite, memBlock, write10(0, 1)...)
				i.send(w, nil, nil)
				i.expect(opR2T)
				r := i.command(bitRead, memBlock, read10(0, 1)...)
				i.send(r, nil, nil)
				<-started
				waits, runs = append(waits, w), append(runs, r)
			}
			h := one.tmf(c.function, c.lun, nil)
			if got := one.tmfResponse(h); got != c.response {
				t.Errorf("%s: response %d, want %d", c.name, got, c.response)
			}
			if r, cl := b.disk.counts(); r-resets != c.resets || cl-cleared != c.cleared {
				t.Errorf("%s: %d resets, %d clears", c.name, r-resets, cl-cleared)
			}
			for n, i := range []*initiator{one, two} {
				ended := n == 0 && c.ends || n == 1 && c.others
				if ended && n == 1 {
					// This initiator receives only the new window.
					if r, _ := i.expect(opNopIn); r.itt() != reservedTag || r.ttt() != reservedTag {
						t.Errorf("%s: NOP-In %x", c.name, *r)
					}
					if got := i.maxSN - i.cmdSN + 1; got != 128 {
						t.Errorf("%s: the window has %d places", c.name, got)
					}
				}
				want := byte(tmfComplete)
				if ended {
					want = tmfTaskDoesNotExist
				}
				for _, task := range []*bhs{waits[n], runs[n]} {
					if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, task)); got != want {
						t.Errorf("%s: abort of session %d's task afterwards: %d, want %d", c.name, n, got, want)
					}
				}
			}
			close(release)
			one.alive()
			two.alive()
			one.logout()
			two.logout()
			eventually(t, "both sessions have ended", func() bool { return len(b.srv.Sessions()) == 0 })
		}
	})
}

// A cold reset ends the tasks and sessions of the target, its own after the response,
// and not those of other targets.
func TestTMF_ColdReset(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.block()
		one, two, elsewhere := b.login(), b.loginAs(testInitiator+"2"), b.dial()
		elsewhere.login(name, "TargetName="+testTarget+"2")
		for _, i := range []*initiator{one, two} {
			i.send(i.command(bitRead, memBlock, read10(0, 1)...), nil, nil)
			<-started
		}
		if got := one.tmfResponse(one.tmf(tmfTargetColdReset, [8]byte{}, nil)); got != tmfComplete {
			t.Errorf("response %d", got)
		}
		one.expectClosed()
		two.expectClosed()
		close(release)
		elsewhere.alive()
		if resets, _ := b.disk.counts(); resets != 1 {
			t.Errorf("%d resets", resets)
		}
		eventually(t, "both nexuses are lost", func() bool { return b.disk.nexuses() == 0 })
		b.login().alive()
	})
}

// Commands hang in the store and ignore their context. Task management, other commands,
// logout, login and shutdown continue. The results of the aborted commands are dropped
// when they return.
func TestTMF_StalledStore(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		started, release := b.disk.hang()
		i := b.login()
		var hung []*bhs
		for n := range 3 {
			h := i.command(bitWrite, memBlock, write10(uint32(n), 1)...)
			i.send(h, nil, pattern(n, memBlock))
			<-started
			hung = append(hung, h)
		}
		works := func(i *initiator) {
			t.Helper()
			h := i.command(0, 0, 0x35)
			i.send(h, nil, nil)
			i.good(h)
		}
		works(i)
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, hung[0])); got != tmfComplete {
			t.Errorf("ABORT TASK: response %d", got)
		}
		if got := i.tmfResponse(i.tmf(tmfLogicalUnitReset, [8]byte{}, nil)); got != tmfComplete {
			t.Errorf("LOGICAL UNIT RESET: response %d", got)
		}
		works(i)
		if got := i.maxSN - i.cmdSN + 1; got != 128 {
			t.Errorf("the window has %d places, want all", got)
		}
		if got := b.srv.Sessions()[0]; got.Detached != 3 || got.Commands != 0 {
			t.Errorf("session %+v, want 3 detached commands", got)
		}
		again := b.login() // reinstatement
		works(again)
		again.logout()
		works(b.loginAs(testInitiator + "2"))
		if n := b.disk.nexuses(); n != 2 {
			t.Errorf("%d nexuses, want that of the hung commands and the last one", n)
		}
		close(release)
		eventually(t, "the nexus of the hung commands is detached", func() bool { return b.disk.nexuses() == 1 })
	})
}

// A command hangs on the reader, where it runs because earlier ones were short. The
// connection continues within two ticks.
func TestWatchdog_StalledReader(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		var hanging func()
		entered := make(chan struct{})
		b.disk.execute = func(_ context.Context, t *scsi.Task) {
			if lba, _ := lbaRange(t.CDB()); lba == 7 && isRead(t.OpCode) {
				entered <- struct{}{}
				hanging()
			}
			b.disk.run(t)
		}
		release := make(chan struct{})
		hanging = func() { <-release }
		i := b.login()
		b.srv.Sessions()
		for s := range b.srv.sessions {
			s.cost[0x28].Store(1) // READ(10) is expected to be short
		}
		first := i.command(bitRead, memBlock, read10(7, 1)...)
		i.send(first, nil, nil)
		<-entered
		second := i.command(bitRead, memBlock, read10(0, 1)...)
		i.send(second, nil, nil)
		i.good(second)
		close(release)
		i.good(first)
		i.alive()
		i.logout()
	})
}

// A session whose commands all hang ends further ones with BUSY, and its memory does
// not grow.
func TestSession_TooManyDetached(t *testing.T) {
	b := newBench(t, func(o *Options) { o.QueueDepth, o.AbortTimeout = 2, time.Millisecond }, nil)
	started, release := b.disk.hang()
	i := b.login()
	for range 2 {
		h := i.command(bitRead, memBlock, read10(0, 1)...)
		i.send(h, nil, nil)
		<-started
		if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, h)); got != tmfComplete {
			t.Fatalf("response %d", got)
		}
	}
	h := i.command(bitRead, memBlock, read10(0, 1)...)
	i.send(h, nil, nil)
	if r, _ := i.status(h); r[3] != statusBusy {
		t.Errorf("status %d, want BUSY", r[3])
	}
	close(release)
	eventually(t, "the hung commands ended", func() bool { return b.srv.Sessions()[0].Detached == 0 })
	i.alive()
}

// Shutdown requests a logout, lets commands end, and aborts those that are running when
// the context ends.
func TestServer_Shutdown(t *testing.T) {
	for _, c := range []struct {
		name  string
		block func(d *memDisk) (started, release chan struct{})
		want  error
	}{
		{"idle", nil, nil},
		{"running", (*memDisk).block, nil},
		{"hanging", (*memDisk).hang, ErrCommandsRunning},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, func(o *Options) { o.LogoutTimeout = 20 * time.Millisecond }, nil)
			i := b.login("ImmediateData=No")
			b.dial() // does not log in
			release := make(chan struct{})
			if c.block != nil {
				var started chan struct{}
				started, release = c.block(b.disk)
				i.send(i.command(bitRead, memBlock, read10(0, 1)...), nil, nil)
				<-started
			}
			i.send(i.command(bitWrite, memBlock, write10(0, 1)...), nil, nil)
			i.expect(opR2T)
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- b.srv.Shutdown(ctx) }()
			r, _ := i.expect(opAsync)
			if r[36] != asyncLogoutRequest || r.field16(42) == 0 {
				t.Errorf("async message %x", *r)
			}
			h := i.command(0, 0, 0x35)
			i.send(h, nil, nil)
			if r, _ := i.status(h); r[3] != statusBusy {
				t.Errorf("status %d, want BUSY", r[3])
			}
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("Shutdown: %v, want %v", err, c.want)
			}
			i.expectClosed()
			close(release)
			eventually(t, "the nexus is detached", func() bool { return b.disk.nexuses() == 0 })
		})
	}
}

// A command that ends in time is answered.
func TestServer_ShutdownWaits(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LogoutTimeout = time.Millisecond }, nil)
	started, release := b.disk.block()
	i := b.login()
	h := i.command(bitRead, memBlock, read10(0, 1)...)
	i.send(h, nil, nil)
	<-started
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.srv.Shutdown(ctx) }()
	i.expect(opAsync)
	close(release)
	i.good(h)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
