package iscsi

import (
	"sync/atomic"
	"time"
)

// A reader runs short commands itself. It cannot know that a command is short,
// only that commands of its kind lately were. The watchdog makes up for the
// difference: while commands run on readers it looks at all of them every
// readerTick, and where one has been running the same command for a whole tick
// it starts another reader for the connection. The first one becomes a worker
// that ends with its command.
const readerTick = 5 * time.Millisecond

// turns says who is a connection's reader. The number in state is that of the
// current turn, doubled, plus one while a command runs on the reader; the turn
// changes with each command. Whoever changes state from the value it knows has
// the reader's place: the reader when its command ended, or the watchdog.
type turns struct {
	state atomic.Uint64
	// last is what the watchdog saw a tick ago. It belongs to the watchdog.
	last uint64
}

// begin notes that a command runs on the reader.
func (t *turns) begin(w *watchdog) uint64 {
	turn := t.state.Load() + 3 // even → odd, next turn
	t.state.Store(turn)
	if w.asleep.Load() {
		w.rouse()
	}
	return turn
}

// end notes that it has ended; false says that the place was taken.
func (t *turns) end(turn uint64) bool { return t.take(turn) }

// observe reports, once a tick, whether commands run on the reader at all, and
// the turn that has been running since the last call, 0 when there is none.
func (t *turns) observe() (busy bool, stuck uint64) {
	now := t.state.Load()
	last := t.last
	t.last = now
	if now&1 == 1 && now == last {
		stuck = now
	}
	return now != last || stuck != 0, stuck
}

// take takes the reader's place in the given turn, unless that is over.
func (t *turns) take(turn uint64) bool { return t.state.CompareAndSwap(turn, turn-1) }

// watchdog looks after connections: stuck readers, and silent initiators; and
// after sessions whose workers have nothing to do.
type watchdog struct {
	srv *Server
	// asleep: no command has run on a reader for some time.
	asleep atomic.Bool
	wake   chan struct{}
	stop   chan struct{}
	conns  []*conn // reused by each look
}

func (w *watchdog) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run is the watchdog's goroutine.
func (w *watchdog) run() {
	tick := time.NewTimer(readerTick)
	defer tick.Stop()
	ping := time.NewTicker(w.srv.lookTick())
	defer ping.Stop()
	idle := 0
	for {
		select {
		case <-w.stop:
			return
		case <-ping.C:
			w.conns = w.srv.appendConns(w.conns[:0])
			short := w.srv.budget.short()
			for _, c := range w.conns {
				c.pinger.tick(c)
				c.stall.tick(c, short)
			}
			w.srv.budget.look()
			w.srv.lookAtLogins()
			w.srv.dismissSpare()
			continue
		case <-w.wake:
			w.asleep.Store(false)
			idle = 0
		case <-tick.C:
		}
		busy := w.look()
		if idle++; busy {
			idle = 0
		}
		if idle < 20 {
			tick.Reset(readerTick)
			continue
		}
		// A reader that begins a command from here on sees asleep; look once
		// more for one that had begun before.
		w.asleep.Store(true)
		if w.look() {
			w.rouse()
		}
	}
}

// look replaces readers that are stuck and reports whether any was busy.
func (w *watchdog) look() (busy bool) {
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
		go w.srv.carry(c.takeOver)
	}
	return busy
}

// pinger finds initiators that are gone (RFC 7143 11.19: NOP-In as a ping).
type pinger struct {
	reads  uint32
	silent time.Duration
	asked  bool
}

// tick is called every lookTick.
func (g *pinger) tick(c *conn) {
	o := &c.srv.opts
	if !c.fullFeature.Load() || o.PingInterval == 0 {
		return // the login has its own limit
	}
	if n := c.in.reads.Load(); n != g.reads || c.notReading.Load() {
		g.reads, g.silent, g.asked = n, 0, false
		return
	}
	g.silent += c.srv.lookTick()
	switch {
	case g.silent < o.PingInterval:
	case !g.asked:
		g.asked = true
		c.ping()
	case g.silent >= o.PingInterval+o.PingTimeout:
		c.sess.log.WithField("silent", g.silent).Warn("initiator does not answer, closing the connection")
		c.close()
	}
}

// ping asks the initiator for a sign of life.
func (c *conn) ping() {
	s := c.sess
	s.mu.Lock()
	ttt := c.nextTTT()
	s.mu.Unlock()
	c.nopIn(ttt)
}

// nopIn sends a NOP-In of our own: a ping, or with the reserved tag one that
// only tells ExpCmdSN and MaxCmdSN.
func (c *conn) nopIn(ttt uint32) {
	p := c.out.get(opNopIn, reservedTag)
	p.put32(20, ttt)
	c.out.queue(p, statSNNext)
	c.out.flush()
}
