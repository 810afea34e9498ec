package iscsi

import (
	"context"
	"testing"
	"time"

	"odx/target/scsi"
)

// A command that is not short runs on the reader as long as the initiator waits
// for each answer; once commands came meanwhile, workers run them for a while.
func TestLoneCommandsRunOnTheReader(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login()
	s := b.srv.sessionsOf(b.srv.targets[0])[0]
	onReader := make(chan bool, 1)
	meanwhile := func() {}
	b.disk.execute = func(context.Context, *scsi.Task) {
		s.mu.Lock()
		workers := s.running
		s.mu.Unlock()
		meanwhile()
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
		// What a worker ran is answered before the worker is gone.
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
	meanwhile = func() { second, meanwhile = send(), func() {} }
	first := send()
	if !<-onReader {
		t.Error("the first of two was alone and did not run on the reader")
	}
	<-onReader
	i.good(first)
	i.good(second)

	for range companyLasts - 1 {
		run("after company", false)
	}
	run("long after company", true)

	s.cost[op].Store(int32(time.Second))
	h := i.command(0, 0, op)
	i.send(h, nil, nil)
	if <-onReader {
		t.Error("a command of a kind that takes a second ran on the reader")
	}
	i.good(h)
}

// Only a PDU that does not acknowledge the last answer is company.
func TestSolitude(t *testing.T) {
	for _, c := range []struct {
		name      string
		next, ack uint32
		likely    bool
	}{
		{"acknowledged", 7, 7, true},
		{"sent before the answer", 7, 6, false},
		{"acknowledged over the wrap", 1, 1, true},
		{"sent before the wrap", 1, 1<<32 - 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o solitude
			o.answered(c.next)
			o.heed(c.ack)
			if o.likely() != c.likely {
				t.Errorf("likely %v, want %v", o.likely(), c.likely)
			}
			for range companyLasts {
				o.heed(c.ack) // nothing ran on the reader since
			}
			if !o.likely() {
				t.Error("company lasts for ever")
			}
		})
	}
}
