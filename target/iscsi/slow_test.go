package iscsi

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"odx/internal/kit/logs"
	"odx/target/scsi"
)

// TestSession_noteSlow: where the time of a command went, by when it passed what.
func TestSession_noteSlow(t *testing.T) {
	const s = time.Second
	for name, tt := range map[string]struct {
		ended time.Duration // the command arrives at 10 s
		at    timing
		want  slowCommand
	}{
		"read on the reader":      {12 * s, timing{started: 10 * s, running: 2 * s, ran: 12 * s}, slowCommand{took: 2 * s, run: 2 * s}},
		"no worker":               {15 * s, timing{started: 13 * s, running: 2 * s, ran: 15 * s}, slowCommand{took: 5 * s, queued: 3 * s, run: 2 * s}},
		"data comes late":         {16 * s, timing{complete: 14 * s, started: 15 * s, running: s, ran: 16 * s}, slowCommand{took: 6 * s, data: 4 * s, queued: s, run: s}},
		"held by others":          {16 * s, timing{held: 4 * s, started: 15 * s, running: s, ran: 16 * s}, slowCommand{took: 6 * s, order: 4 * s, queued: s, run: s}},
		"changes settle late":     {19 * s, timing{complete: 10 * s, started: 10 * s, running: s, ran: 11 * s}, slowCommand{took: 9 * s, run: s, answer: 8 * s}},
		"pieces of a stream":      {20 * s, timing{started: 10 * s, running: 3 * s, ran: 20 * s}, slowCommand{took: 10 * s, run: 3 * s, transfer: 7 * s}},
		"aborted before it began": {15 * s, timing{held: 5 * s}, slowCommand{took: 5 * s, order: 5 * s}},
		"fast enough":             {11*s - 1, timing{started: 10 * s}, slowCommand{}},
	} {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions()
			o.SlowCommand = time.Second
			srv := newServer(&configuration{options: o})
			task := &task{st: scsi.NewTask(o.Pool), arrived: 10 * s, ended: tt.ended, timing: tt.at}
			task.st.Reset(nil, read10(8, 1))
			(&session{srv: srv}).noteSlow(task)
			if tt.want == (slowCommand{}) {
				if n := len(srv.slow.queue); n != 0 {
					t.Errorf("%d lines", n)
				}
				return
			}
			got := <-srv.slow.queue
			tt.want.name = "operation code 28h"
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestServer_SlowCommand: commands that run, that wait for data, and that are aborted are
// logged, with initiator and target; none is where that is off.
func TestServer_SlowCommand(t *testing.T) {
	for name, limit := range map[string]time.Duration{"all": 1, "none": 0} {
		t.Run(name, func(t *testing.T) {
			text := new(logs.Text)
			b := newBench(t, func(o *Options) { o.SlowCommand, o.Log = limit, text.Entry() }, nil)
			started, release := b.disk.block()
			i := b.login("ImmediateData=No")
			h := i.command(bitRead, memBlock, read10(0, 1)...)
			i.send(h, nil, nil)
			<-started
			if got := i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, h)); got != tmfComplete {
				t.Errorf("ABORT TASK: %d", got)
			}
			close(release)
			i.readBlocks(0, 1)
			if limit == 0 {
				if strings.Contains(text.String(), "slow command") {
					t.Errorf("logged:\n%s", text)
				}
				return
			}
			eventually(t, "both are logged", func() bool { return strings.Count(text.String(), "slow command") == 2 })
			for _, want := range []string{"operation code 28h", "aborted", testInitiator, testTarget, "run", "took"} {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
		})
	}
}

// TestSlowLog_Bound: when all commands are slow, few lines are written, and none of them
// waits.
func TestSlowLog_Bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := new(logs.Text)
		o := DefaultOptions()
		o.SlowCommand = 1
		srv := newServer(&configuration{options: o})
		s := &session{srv: srv, log: text.Entry().WithFields(logrus.Fields{})}
		slow := &task{st: scsi.NewTask(o.Pool), ended: time.Minute}
		for range 10 * slowQueue {
			s.noteSlow(slow)
		}
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() { srv.slow.run(stop); close(ended) }()
		synctest.Wait()
		if n := strings.Count(text.String(), "slow command"); n != slowAtOnce {
			t.Errorf("%d lines of %d", n, 10*slowQueue)
		}
		time.Sleep(time.Second)
		s.noteSlow(slow)
		synctest.Wait()
		for _, want := range []string{"suppressed=576", "suppressed=44"} { // not queued; not logged
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in:\n%s", want, text)
			}
		}
		close(stop)
		<-ended
	})
}
