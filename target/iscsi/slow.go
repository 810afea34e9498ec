package iscsi

import (
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

const (
	// slowRate bounds the lines about slow commands in a second, and slowAtOnce those at
	// once: a stalled disk makes all commands slow.
	slowRate   = 10
	slowAtOnce = 20
	// slowQueue bounds the slow commands that wait to be logged.
	slowQueue = 64
)

// timing is where the time of a command went, by the clock of its connection's reader. All
// but held comes from readings of the clock that there are in any case.
type timing struct {
	// complete is when the command had its first Data-Out, and held for how long it was
	// held then; started is when it began to run, running for how long it ran, in all its
	// pieces, and ran when it ended. 0: that did not happen.
	complete, started, running, ran time.Duration
	holding, held                   time.Duration
}

// hold notes that the command is held from now on, release that it is not any more.
func (t *task) hold() { t.timing.holding = time.Since(t.conn.in.clock) }

func (t *task) release() {
	if t.timing.holding != 0 {
		t.timing.held += time.Since(t.conn.in.clock) - t.timing.holding
		t.timing.holding = 0
	}
}

// slowLog logs slow commands, without delaying any.
type slowLog struct {
	queue chan slowCommand
	// lost counts those that were not queued.
	lost atomic.Uint64
}

// slowCommand is what is logged of one.
type slowCommand struct {
	log      *logrus.Entry
	name     string
	lun      uint16
	offset   uint64
	length   uint32
	status   byte
	aborted  bool
	took     time.Duration
	data     time.Duration // until it had its Data-Out
	order    time.Duration // held by other commands, or by limits
	queued   time.Duration // until it ran: for a worker, for memory
	run      time.Duration
	transfer time.Duration // between the pieces of a streamed command
	answer   time.Duration // until its changes survive this process
}

// noteSlow queues a line about a command that ends at t.ended, if it was slow. The caller
// holds mu, so that nothing is formatted here.
func (s *session) noteSlow(t *task) {
	limit, took := s.srv.options().SlowCommand, t.ended-t.arrived
	if limit == 0 || took < limit {
		return
	}
	lun, _ := t.st.LUN()
	m := &t.timing
	c := slowCommand{
		log: s.log, name: t.st.Name(), lun: lun, offset: t.st.Offset, length: t.st.TL, status: t.st.Result, aborted: t.aborted,
		took: took, order: m.held, run: m.running,
	}
	began := m.started
	if began == 0 { // it never ran
		began = t.ended
	}
	if m.complete != 0 {
		c.data = m.complete - t.arrived
	}
	c.queued = max(began-t.arrived-c.data-c.order, 0)
	if m.ran != 0 {
		c.answer = t.ended - m.ran
		c.transfer = max(m.ran-began-m.running, 0)
	}
	select {
	case s.srv.slow.queue <- c:
	default:
		s.srv.slow.lost.Add(1)
	}
}

// run logs until stop is closed.
func (l *slowLog) run(stop <-chan struct{}) {
	limit := rate.NewLimiter(slowRate, slowAtOnce)
	suppressed := uint64(0)
	for {
		select {
		case <-stop:
			return
		case c := <-l.queue:
			suppressed += l.lost.Swap(0)
			if !limit.Allow() {
				suppressed++
				continue
			}
			c.write(suppressed)
			suppressed = 0
		}
	}
}

// write writes the line; suppressed is how many are missing before it.
func (c *slowCommand) write(suppressed uint64) {
	fields := logrus.Fields{"command": c.name, "lun": c.lun, "took": short(c.took), "run": short(c.run)}
	for name, d := range map[string]time.Duration{"data": c.data, "order": c.order, "queue": c.queued, "transfer": c.transfer, "answer": c.answer} {
		if d >= time.Millisecond {
			fields[name] = short(d)
		}
	}
	if c.length > 0 {
		fields["offset"], fields["length"] = c.offset, c.length
	}
	switch {
	case c.aborted:
		fields["aborted"] = true
	case c.status != statusGood:
		fields["status"] = c.status
	}
	if suppressed > 0 {
		fields["suppressed"] = suppressed
	}
	c.log.WithFields(fields).Warn("slow command")
}

func short(d time.Duration) string { return d.Round(time.Millisecond).String() }
