package iscsi

import (
	"context"
	"testing"
	"time"

	"odx/target/scsi"
)

// A longer command runs on the reader while the initiator waits for each response; after
// concurrent commands, workers run it for backoffPDUs.
func TestConn_RunOnReader(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	s := b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer)[0]
	onReader := make(chan bool, 1)
	concurrent := func() {}
	b.disk.execute = func(context.Context, *scsi.Task) {
		s.mu.Lock()
		workers := s.running
		s.mu.Unlock()
		concurrent()
		onReader <- workers == 0
	}
	const op = 0x35 // SYNCHRONIZE CACHE(10)
	send := func() *bhs {
		s.cost[op].Store(int32(loneCommand / 2))
		h := i.command(0, 0, op)
		i.send(h, nil, nil)
		return h
	}
	run := func(what string, want bool) {
		t.Helper()
		h := send()
		if got := <-onReader; got != want {
			t.Errorf("%s: on the reader %v, want %v", what, got, want)
		}
		i.good(h)
		// A worker's command may be answered before the worker has parked.
		eventually(t, "no worker is left", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.running == 0
		})
	}
	for range 3 {
		run("one after the other", true)
	}

	var second *bhs
	concurrent = func() { second, concurrent = send(), func() {} }
	first := send()
	if !<-onReader {
		t.Error("the first of two commands did not run on the reader")
	}
	<-onReader
	i.good(first)
	i.good(second)

	for range backoffPDUs - 1 {
		run("during backoff", false)
	}
	run("after backoff", true)

	s.cost[op].Store(int32(time.Second))
	h := i.command(0, 0, op)
	i.send(h, nil, nil)
	if <-onReader {
		t.Error("a command with an average of one second ran on the reader")
	}
	i.good(h)
}

// Only a PDU that does not acknowledge the last response ends the detection.
func TestClosedLoop(t *testing.T) {
	for _, c := range []struct {
		name      string
		next, ack uint32
		detected  bool
	}{
		{"acknowledged", 7, 7, true},
		{"sent before the answer", 7, 6, false},
		{"acknowledged over the wrap", 1, 1, true},
		{"sent before the wrap", 1, 1<<32 - 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o closedLoop
			o.responded(c.next)
			o.received(c.ack)
			if o.detected() != c.detected {
				t.Errorf("detected %v, want %v", o.detected(), c.detected)
			}
			for range backoffPDUs {
				o.received(c.ack) // no command ran on the reader since
			}
			if !o.detected() {
				t.Error("backoff does not end")
			}
		})
	}
}
