package iscsi

import (
	"errors"
	"time"
)

// errReaderLost ends a reader whose place another one has taken, because it
// ran a command that did not end (see watchdog.go). The connection lives on.
var errReaderLost = errors.New("another reader has taken over")

const (
	// A command runs on the reader if its kind lately took no longer than this,
	// which is about what waking a worker would add, ...
	shortCommand = 20 * time.Microsecond
	// ... and if it moves no more data than this.
	shortTransfer = 128 << 10
	// loneCommand is the same for a command that the initiator waits for before
	// it sends another one (see solitude.go).
	loneCommand = time.Millisecond
	// flushEvery is after how many commands that ran on the reader their
	// responses are sent, though more commands have already arrived: the
	// initiator can go on with these meanwhile.
	flushEvery = 16
)

// handleCommand takes a SCSI Command PDU (RFC 7143 11.3).
func (c *conn) handleCommand(p *pdu) error {
	t, err := c.beginCommand(p)
	if err != nil {
		return err
	}
	return c.collect(t, p)
}

// beginCommand makes the header of a SCSI Command a task of the session and has
// it decoded. It returns nil for a command that was rejected.
func (c *conn) beginCommand(p *pdu) (*task, error) {
	s := c.sess
	if s.kind == sessionDiscovery {
		return nil, protocolError("SCSI command in a discovery session")
	}
	info, err := parseAHS(p.ahs)
	if err != nil {
		return nil, err
	}
	if !p.final() && p.bhs[1]&bitWrite == 0 {
		return nil, malformed("SCSI command that is no write announces unsolicited data")
	}
	t := c.newTask(p, info)
	if reason := s.begin(t); reason != 0 {
		t.recycle()
		s.releasePlace(p)
		c.reject(p, reason)
		return nil, nil
	}
	c.prepare(t, info)
	return t, nil
}

// collect takes the data that came with the command and goes on with it. t is
// nil for a command that was rejected.
func (c *conn) collect(t *task, p *pdu) error {
	if t == nil {
		return p.discard()
	}
	if err := c.takeImmediateData(t, p); err != nil {
		return err
	}
	return c.proceed(t)
}

// prepare has the device server decode the command.
func (c *conn) prepare(t *task, info ahsInfo) {
	switch {
	case c.sess.refuses():
		t.st.Result, t.early = statusBusy, true
		return
	case t.read && t.write || info.bidirectional:
		t.fail(&senseInvalidIU) // no command that we know has two directions
		return
	}
	if t.early = c.sess.target.DeviceServer.Prepare(t.st); t.early {
		return
	}
	if !t.dataOutTotal() {
		t.fail(&senseInvalidCDB)
	}
}

// proceed does the next thing for a command that the reader has: wait for more
// data, ask for it, answer, or start it.
func (c *conn) proceed(t *task) error {
	s, o := c.sess, &t.out
	s.mu.Lock()
	over := t.early || t.failure != nil
	switch {
	case t.aborted:
		s.free(t)
	case over && o.n == 0:
		s.complete(t)
	case over || o.find(reservedTag) != nil:
		t.state = taskCollecting
	case o.next < o.want || o.n > 0:
		t.state = taskCollecting
		s.solicit(t)
	default:
		return c.start(t)
	}
	s.mu.Unlock()
	return nil
}

// start runs a command that has all of its data: here or on a worker. The
// session's mu is held and is released.
func (c *conn) start(t *task) error {
	s := c.sess
	if s.holdBack(t) {
		s.mu.Unlock()
		return nil
	}
	if !c.suits(t) || len(s.ready) > 0 || !s.takeDataIn(t) {
		s.enqueue(t)
		s.mu.Unlock()
		return nil
	}
	t.state = taskRunning
	s.executing++
	s.mu.Unlock()
	return c.runHere(t)
}

// suits reports whether a command should run on the reader: it is likely to be
// short, or nobody waits for what the reader would do meanwhile. The session's
// mu is held.
func (c *conn) suits(t *task) bool {
	cost := time.Duration(c.sess.cost[t.st.OpCode].Load()) // 0: not known
	switch {
	case t.kept || t.edtl > shortTransfer:
		return false // this may not be the reader of its connection, or takes long
	case cost != 0 && cost <= shortCommand:
		return true
	}
	return cost <= loneCommand && len(c.sess.tasks) == 1 && !c.in.ready() && c.solitude.likely()
}

// runHere runs a command on the reader. Should it not end soon, the watchdog
// starts another reader, and this one must touch nothing of the reader's any
// more once it comes back.
func (c *conn) runHere(t *task) error {
	turn := c.turns.begin(&c.srv.watchdog)
	if !gathers(t.st.OpCode) {
		c.settle()
	}
	t.execute()
	waits := t.st.MayChange() && c.srv.opts.Settler.Unsettled()
	if waits {
		c.unsettled.add(t)
	}
	lost := !c.turns.end(turn)
	if !waits {
		c.sess.finish(t)
	}
	if lost {
		c.settle()
		c.out.flush()
		return errReaderLost
	}
	if !waits {
		c.solitude.answered(c.out.nextStatSN())
	}
	if c.unflushed++; c.unflushed >= flushEvery {
		return c.answer()
	}
	return nil
}

// answer sends the responses of what the reader has run. It has no PDU in its
// hands.
func (c *conn) answer() error {
	c.unflushed = 0
	if err := c.settleHere(); err != nil {
		return err
	}
	c.out.flush()
	return nil
}

// earlyPDU is a PDU that is kept until the PDUs before it have arrived.
type earlyPDU struct {
	conn *conn
	// pdu is nil when the command was aborted meanwhile: its CmdSN counts as
	// received (RFC 7143 11.5.1).
	pdu *pdu
	// data are the unsolicited Data-Out PDUs that followed a command.
	data []*pdu
	// charged is what of the budget they hold, in bytes.
	charged int
}

// Bounds of what is kept for out-of-order CmdSN.
const maxEarlyBytes = 4 << 20

// cmdSNOrder says where a CmdSN stands against the window.
type cmdSNOrder int

const (
	cmdSNNext cmdSNOrder = iota
	cmdSNEarly
	cmdSNOutside
)

// serialLess compares sequence numbers (RFC 1982, 32 bits).
func serialLess(a, b uint32) bool { return int32(a-b) < 0 }

// sequence decides on the CmdSN of a PDU that is not immediate and counts it
// if it is the next one (RFC 7143 4.2.2.1).
func (s *session) sequence(cmdSN uint32) cmdSNOrder {
	s.mu.Lock()
	defer s.mu.Unlock()
	exp := s.exp.Load()
	switch {
	case serialLess(cmdSN, exp) || serialLess(s.limit.Load(), cmdSN):
		return cmdSNOutside
	case cmdSN == exp:
		s.exp.Store(exp + 1)
		return cmdSNNext
	case s.early[cmdSN] != nil:
		return cmdSNOutside // a duplicate
	}
	return cmdSNEarly
}

// releasePlace frees the place of p in the window: it was answered, or will
// not be.
func (s *session) releasePlace(p *pdu) {
	if p.immediate() {
		return
	}
	s.mu.Lock()
	s.limit.Add(1)
	s.mu.Unlock()
}

// keepEarly keeps a PDU until its turn comes.
func (c *conn) keepEarly(p *pdu) error {
	s := c.sess
	k, err := p.keep()
	if err != nil {
		return c.droppedData(p, err) // as if it had not arrived
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &earlyPDU{conn: c, pdu: k}
	s.early[p.cmdSN()] = e
	s.earlyWaiting.Store(true)
	return s.countEarly(e, k)
}

// countEarly bounds what is kept: k is one more PDU of e. mu is held.
func (s *session) countEarly(e *earlyPDU, k *pdu) error {
	n := bhsLength + len(k.kept)
	b := s.srv.budget
	if s.earlyBytes+n > maxEarlyBytes || !b.unsolicited.take(s.share, int64(n)) {
		return protocolError("more than %d bytes of commands and data arrived before the command that comes first, or memory is short", maxEarlyBytes)
	}
	s.earlyBytes += n
	e.charged += n
	return nil
}

// freeEarly gives back what e was charged. mu is held.
func (s *session) freeEarly(e *earlyPDU) {
	s.earlyBytes -= e.charged
	s.srv.budget.give(s.share, charge{&s.srv.budget.unsolicited, int64(e.charged)})
	e.charged = 0
}

// earlyCommand returns the kept command of connection c with tag itt. mu is
// held.
func (s *session) earlyCommand(itt uint32, c *conn) *earlyPDU {
	for _, e := range s.early {
		if e.conn == c && e.pdu != nil && e.pdu.opcode() == opSCSICommand && e.pdu.itt() == itt {
			return e
		}
	}
	return nil
}

// keepDataOut keeps the unsolicited data of a kept command.
func (c *conn) keepDataOut(e *earlyPDU, p *pdu) error {
	k, err := p.keep()
	if err != nil {
		return c.droppedData(p, err)
	}
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	e.data = append(e.data, k)
	return s.countEarly(e, k)
}

// takeEarly returns the kept PDU whose turn it is, nil when there is none.
func (s *session) takeEarly() *earlyPDU {
	if !s.earlyWaiting.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.earlyWaiting.Store(len(s.early) > 0) }()
	for len(s.early) > 0 {
		exp := s.exp.Load()
		e := s.early[exp]
		if e == nil {
			return nil
		}
		delete(s.early, exp)
		s.exp.Store(exp + 1)
		if e.pdu != nil {
			s.freeEarly(e)
			return e
		}
		s.limit.Add(1)
	}
	return nil
}
