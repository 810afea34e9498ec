package iscsi

import (
	"errors"
	"time"
)

// errReaderLost ends a reader that was replaced because it ran a command for too long
// (see watchdog.go). The connection continues.
var errReaderLost = errors.New("reader was replaced")

const (
	// shortCommand is the maximum average duration of an operation code that runs on
	// the reader: about the cost of waking a worker.
	shortCommand = 20 * time.Microsecond
	// shortTransfer is the maximum data of such a command in bytes.
	shortTransfer = 128 << 10
	// loneCommand replaces shortCommand if the initiator waits for the response before
	// it sends another command (see closedloop.go).
	loneCommand = time.Millisecond
	// flushEvery is the number of commands on the reader after which it sends their
	// responses even though more commands have arrived, so that the initiator can
	// process them concurrently.
	flushEvery = 16
)

// handleCommand handles a SCSI Command PDU (RFC 7143 11.3).
func (c *conn) handleCommand(p *pdu) error {
	t, err := c.registerCommand(p)
	if err != nil {
		return err
	}
	return c.collect(t, p)
}

// registerCommand adds the header of a SCSI Command as a task of the session and decodes
// it. It returns nil for a command that was rejected.
func (c *conn) registerCommand(p *pdu) (*task, error) {
	s := c.sess
	if s.kind == sessionDiscovery {
		return nil, protocolError("SCSI command in a discovery session")
	}
	info, err := parseAHS(p.ahs)
	if err != nil {
		return nil, err
	}
	if !p.final() && p.bhs[1]&bitWrite == 0 {
		return nil, malformed("SCSI command without W bit announces unsolicited data")
	}
	t := c.newTask(p, info)
	if reason := s.addTask(t); reason != 0 {
		t.recycle()
		s.releasePlace(p)
		c.reject(p, reason)
		return nil, nil
	}
	c.decode(t, info)
	return t, nil
}

// collect reads the data that came with the command and advances the command. t is nil
// for a command that was rejected.
func (c *conn) collect(t *task, p *pdu) error {
	if t == nil {
		return p.discard()
	}
	if err := c.takeImmediateData(t, p); err != nil {
		if c.suspended.by.Load() != nil && c.putBack(t, p, err) {
			return nil
		}
		return err
	}
	return c.advance(t)
}

// decode makes the device server decode the command.
func (c *conn) decode(t *task, info ahsInfo) {
	switch {
	case c.sess.refuses.Load() || c.leaving.Load():
		t.st.Result, t.early = statusBusy, true
		return
	case t.read && t.write || info.bidirectional:
		t.fail(&senseInvalidIU) // bidirectional commands are not supported
		return
	}
	if t.early = c.sess.device.Prepare(t.st); t.early {
		return
	}
	if !t.dataOutTotal() {
		t.fail(&senseInvalidCDB)
	}
}

// advance advances a command that the reader owns: it waits for data, solicits data,
// queues the response, or starts the command.
func (c *conn) advance(t *task) error {
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
		t.keepUnsolicited()
		return c.start(t)
	}
	s.mu.Unlock()
	return nil
}

// start runs a command that has all of its data, on the reader or on a worker. The
// caller holds the session's mu, which start releases.
func (c *conn) start(t *task) error {
	s := c.sess
	if t.write && t.timing.complete == 0 {
		t.timing.complete = time.Duration(c.in.arrived.Load())
	}
	if s.holdBack(t) {
		s.mu.Unlock()
		return nil
	}
	if !c.runsOnReader(t) || len(s.ready) > 0 || !s.takeDataIn(t) {
		s.enqueue(t)
		s.mu.Unlock()
		return nil
	}
	t.state = taskRunning
	s.executing++
	s.mu.Unlock()
	return c.runOnReader(t)
}

// runsOnReader reports whether a command should run on the reader: it is likely to be
// short, or the initiator waits for its response anyway. The caller holds the session's
// mu.
func (c *conn) runsOnReader(t *task) bool {
	cost := time.Duration(c.sess.cost[t.st.OpCode].Load()) // 0: not known
	switch {
	case t.kept || t.edtl > shortTransfer:
		return false // possibly another connection's reader, or likely to be long
	case cost != 0 && cost <= shortCommand:
		return true
	}
	return cost <= loneCommand && len(c.sess.tasks) == 1 && !c.in.ready() && c.closedLoop.detected()
}

// runOnReader runs a command on the reader. If the command takes too long, the watchdog
// starts another reader; this one must then not access state of the reader any more.
func (c *conn) runOnReader(t *task) error {
	turn := c.turns.begin(&c.srv.watchdog)
	if !canRunUnsettled(t.st.OpCode) {
		c.settle()
	}
	t.execute()
	waits := t.st.MayChange() && c.srv.settler.Unsettled()
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
		c.closedLoop.responded(c.out.nextStatSN())
	}
	if c.unflushed++; c.unflushed >= flushEvery {
		return c.sendResponses()
	}
	return nil
}

// sendResponses sends the responses of the commands that ran on the reader. The reader
// must not be in the middle of a PDU.
func (c *conn) sendResponses() error {
	c.unflushed = 0
	if err := c.settleOnReader(); err != nil {
		return err
	}
	c.out.flush()
	return nil
}

// earlyPDU is a PDU that is kept until the PDUs before it (by CmdSN) have arrived.
type earlyPDU struct {
	conn *conn
	// pdu is nil if the command was aborted: its CmdSN counts as received (RFC 7143
	// 11.5.1).
	pdu *pdu
	// data has the unsolicited Data-Out PDUs that followed a command.
	data []*pdu
	// charged is the memory of both, in bytes of the budget.
	charged int
}

// maxEarlyBytes bounds the memory for out-of-order PDUs of a session in bytes.
const maxEarlyBytes = 4 << 20

// cmdSNOrder is the position of a CmdSN relative to the window.
type cmdSNOrder int

const (
	cmdSNNext cmdSNOrder = iota
	cmdSNEarly
	cmdSNOutside
)

// serialLess compares sequence numbers (RFC 1982, 32 bits).
func serialLess(a, b uint32) bool { return int32(a-b) < 0 }

// sequence classifies the CmdSN of a PDU that is not immediate, and advances ExpCmdSN if
// it is the next one (RFC 7143 4.2.2.1).
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

// releasePlace frees the place of p in the CmdSN window.
func (s *session) releasePlace(p *pdu) {
	if p.immediate() {
		return
	}
	s.mu.Lock()
	s.limit.Add(1)
	s.mu.Unlock()
}

// keepEarly keeps a PDU until it is next by CmdSN.
func (c *conn) keepEarly(p *pdu) error {
	s := c.sess
	k, err := p.keep()
	if err != nil {
		return c.droppedData(p, err) // RFC 7143 7.8: as if it had not arrived
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &earlyPDU{conn: c, pdu: k}
	s.early[p.cmdSN()] = e
	s.earlyWaiting.Store(true)
	return s.countEarly(e, k)
}

// countEarly charges k, a PDU of e, to the limits. The caller holds mu.
func (s *session) countEarly(e *earlyPDU, k *pdu) error {
	n := bhsLength + len(k.kept)
	b := s.srv.budget
	if s.earlyBytes+n > maxEarlyBytes || !b.unsolicited.take(s.share, int64(n)) {
		return protocolError("more than %d bytes of out-of-order commands and data, or out of memory", maxEarlyBytes)
	}
	s.earlyBytes += n
	e.charged += n
	return nil
}

// freeEarly releases the memory of e. The caller holds mu.
func (s *session) freeEarly(e *earlyPDU) {
	s.earlyBytes -= e.charged
	s.srv.budget.release(s.share, charge{&s.srv.budget.unsolicited, int64(e.charged)})
	e.charged = 0
}

// earlyCommand returns the kept command of connection c with tag itt, or nil. The caller
// holds mu.
func (s *session) earlyCommand(itt uint32, c *conn) *earlyPDU {
	for _, e := range s.early {
		if e.conn == c && e.pdu != nil && e.pdu.opcode() == opSCSICommand && e.pdu.itt() == itt {
			return e
		}
	}
	return nil
}

// keepDataOut keeps unsolicited data of a kept command.
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

// takeEarly returns the kept PDU that is next by CmdSN, or nil.
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
