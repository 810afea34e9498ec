package iscsi

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestSuspend_SolicitedDataElsewhere: a WRITE whose data does not come closes its connection, and
// not the others of its session.
func TestSuspend_SolicitedDataElsewhere(t *testing.T) {
	r := newRelay(t, nil)
	m := r.loginMulti(3)
	for n := range 3 {
		m.alive(n)
	}
	h := m.write(1, 40, 64)
	m.conns[1].send(h, nil, nil)
	m.conns[1].expect(opR2T)
	r.handOver(50*time.Millisecond, 2)
	m.conns[1].expectClosed()
	m.alive(0)
	m.alive(2)
}

// TestSuspend_WaitsForOther: a command that waits for one of another connection, as ORDERED ones
// do, ends after that was aborted, and its connection goes on.
func TestSuspend_WaitsForOther(t *testing.T) {
	r := newRelay(t, nil)
	const synchronize = 0x35
	running, release := r.disk.delay(synchronize)
	waiting, stuck := r.login(), r.loginAs(testInitiator+"2")
	waiting.alive()
	stuck.send(stuck.command(bitWrite, 64*memBlock, write10(0, 64)...), nil, nil)
	stuck.expect(opR2T)
	h := waiting.command(0, 0, synchronize)
	waiting.send(h, nil, nil)
	<-running
	wait := r.beginHandOver(50*time.Millisecond, 1)
	stuck.expectClosed()
	release()
	wait()
	waiting.good(h)
	waiting.alive()
}

// TestSuspend_Hangs: a command that hangs in the store whatever its context says delays
// nothing. Its connection is closed, and its nexus ends when it does.
func TestSuspend_Hangs(t *testing.T) {
	r := newRelay(t, func(o *Options) { o.AbortTimeout = patience })
	started, release := r.disk.hang()
	hung := r.loginAs(testInitiator + "2")
	hung.send(hung.command(bitRead, memBlock, read10(0, 1)...), nil, nil)
	<-started
	i := r.login()
	flush := i.command(0, 0, 0x35)
	i.send(flush, nil, nil)
	i.good(flush)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	s, err := r.srv.Suspend(ctx)
	if took := time.Since(began); !errors.Is(err, ErrCommandsRunning) || took > 3*time.Second {
		t.Errorf("Suspend returned %v after %v, want ErrCommandsRunning", err, took)
	}
	if err := <-r.served; !errors.Is(err, ErrSuspended) {
		t.Errorf("Serve returned %v, want ErrSuspended", err)
	}
	hung.expectClosed()
	if n := r.resume(r.pass(s)); n != 0 {
		t.Errorf("%d connections were closed", n)
	}
	close(release)
	i.alive()
	eventually(t, "the nexus of the command has ended", func() bool { return r.disk.nexuses() == 1 })
}
