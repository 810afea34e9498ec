package iscsi

import (
	"sync/atomic"
	"time"
)

// readerTick is the interval at which the watchdog checks readers while commands run on
// them. Readers run commands that are expected to be short, by the average of their
// kind. If a command runs on a reader for a whole tick, the watchdog starts another
// reader for the connection, and the first one becomes a worker that ends with its
// command.
const readerTick = 5 * time.Millisecond

// turns tracks the role of a connection's reader. state is twice the number of the
// current turn, plus one while a command runs on the reader. The turn changes with each
// command. The goroutine that changes state from the value that it knows has the role:
// the reader after its command, or the watchdog.
type turns struct {
	state atomic.Uint64
	// last is the state at the previous tick. It belongs to the watchdog.
	last uint64
}

// begin records that a command runs on the reader.
func (t *turns) begin(w *watchdog) uint64 {
	turn := t.state.Load() + 3 // even → odd, next turn
	t.state.Store(turn)
	if w.asleep.Load() {
		w.rouse()
	}
	return turn
}

// end records that the command has ended. It returns false if the role was taken.
func (t *turns) end(turn uint64) bool { return t.take(turn) }

// observe is called once per tick. It reports whether commands run on the reader, and
// returns the turn that has been running since the previous call, or 0.
func (t *turns) observe() (busy bool, stuck uint64) {
	now := t.state.Load()
	last := t.last
	t.last = now
	if now&1 == 1 && now == last {
		stuck = now
	}
	return now != last || stuck != 0, stuck
}

// take takes the role of the reader in the given turn, unless that has ended.
func (t *turns) take(turn uint64) bool { return t.state.CompareAndSwap(turn, turn-1) }

// watchdog checks for stuck readers, silent initiators, stalled connections, pending
// logins and idle workers.
type watchdog struct {
	srv *Server
	// asleep is set if no command has run on a reader recently.
	asleep atomic.Bool
	wake   chan struct{}
	stop   chan struct{}
	// adjusted is signaled when the intervals of Options have changed.
	adjusted chan struct{}
	// stopped is closed when the goroutine has ended.
	stopped chan struct{}
	conns   []*conn // reused by each check
	// sampled is when the traffic of the sessions was sampled.
	sampled time.Time
}

func (w *watchdog) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// adjust makes the watchdog use the intervals of the current options.
func (w *watchdog) adjust() {
	select {
	case w.adjusted <- struct{}{}:
	default:
	}
}

// run is the watchdog's goroutine.
func (w *watchdog) run() {
	defer close(w.stopped)
	tick := time.NewTimer(readerTick)
	defer tick.Stop()
	every := w.srv.checkInterval()
	ping := time.NewTicker(every)
	defer ping.Stop()
	idle := 0
	for {
		select {
		case <-w.stop:
			return
		case <-ping.C:
			w.checkConns(every)
			continue
		case <-w.adjusted:
			every = w.srv.checkInterval()
			ping.Reset(every)
			continue
		case <-w.wake:
			w.asleep.Store(false)
			idle = 0
		case <-tick.C:
		}
		busy := w.check()
		if idle++; busy {
			idle = 0
		}
		if idle < 20 {
			tick.Reset(readerTick)
			continue
		}
		// A reader that starts a command from now on sees asleep; check once more for one
		// that started before.
		w.asleep.Store(true)
		if w.check() {
			w.rouse()
		}
	}
}

// checkConns is called every checkInterval, which every is.
func (w *watchdog) checkConns(every time.Duration) {
	w.conns = w.srv.appendConns(w.conns[:0])
	short := w.srv.budget.short()
	for _, c := range w.conns {
		c.pinger.tick(c, every)
		c.stall.tick(c, every, short)
	}
	w.srv.budget.recheck()
	w.srv.checkPendingLogins()
	w.srv.retireSpare()
	if now := time.Now(); now.Sub(w.sampled) >= sampleInterval {
		w.sampled = now
		w.srv.sampleTraffic(now)
	}
}

// check replaces stuck readers, and reports whether any reader was busy.
func (w *watchdog) check() (busy bool) {
	w.conns = w.srv.appendConns(w.conns[:0])
	for _, c := range w.conns {
		b, stuck := c.turns.observe()
		busy = busy || b
		if stuck == 0 {
			continue
		}
		w.srv.workers.Add(1) // the stuck reader becomes a worker
		if !c.turns.take(stuck) {
			w.srv.workers.Done()
			continue
		}
		go w.srv.runReader(c.takeOver)
	}
	return busy
}

// pinger detects dead initiators (NOP-In as a ping, RFC 7143 11.19).
type pinger struct {
	reads, moved uint32
	silent       time.Duration
	asked        bool
}

// tick is called at intervals of every.
func (g *pinger) tick(c *conn, every time.Duration) {
	o := c.srv.options()
	if !c.fullFeature.Load() || o.PingInterval == 0 {
		return // logins have their own timeout
	}
	reads, moved := c.in.reads.Load(), c.out.moved.Load()
	// An initiator that takes what is queued is alive, however slowly it does: a ping waits
	// behind the data. Only what is more than the socket takes shows that.
	receives := moved != g.moved && c.out.bytes.Load() > 0
	g.moved = moved
	if reads != g.reads || receives || c.notReading.Load() {
		g.reads, g.silent, g.asked = reads, 0, false
		return
	}
	g.silent += every
	switch {
	case g.silent < o.PingInterval:
	case !g.asked:
		g.asked = true
		c.ping()
	case g.silent >= o.PingInterval+o.PingTimeout:
		c.sess.log.WithField("silent", g.silent).Warn("connection closed: no response to ping")
		c.close()
	}
}

// ping sends a NOP-In that requests a response.
func (c *conn) ping() {
	s := c.sess
	s.mu.Lock()
	ttt := c.nextTTT()
	s.mu.Unlock()
	c.nopIn(ttt)
}

// nopIn sends a NOP-In: a ping, or with the reserved tag a carrier of ExpCmdSN and
// MaxCmdSN.
func (c *conn) nopIn(ttt uint32) {
	p := c.out.get(opNopIn, reservedTag)
	p.put32(20, ttt)
	c.out.queue(p, statSNNext)
	c.out.flush()
}
