package iscsi

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Sessions with several connections (RFC 7143 4.2.2.1, 4.2.5).
//
// A session that negotiated more than one connection is shared: PDUs with consecutive
// CmdSN arrive on different connections, whose readers run concurrently. The session's
// order lock serializes them: a reader determines the order of a PDU and delivers it
// under the lock. A command is delivered when it is a task of the session and decoded,
// any other PDU when it is handled. No reader waits for a peer under the lock: it reads
// the data of a command afterwards, and that of other PDUs before.
//
// A PDU that arrives early is delivered by the reader that receives the PDU before it,
// on any connection. All PDUs of a command use the connection on which the command
// arrived (connection allegiance).
//
// Sessions with one connection, the common case, do not take the order lock.

// errKept is returned by keepSharedDataOut for a PDU that was kept.
var errKept = errors.New("kept until its CmdSN is next")

// dispatchShared is dispatch for a shared session.
func (c *conn) dispatchShared(p *pdu) error {
	s := c.sess
	if p.opcode() != opSCSICommand {
		k, err := p.keep()
		if err != nil {
			return c.droppedData(p, err)
		}
		p = k
	}
	s.order.Lock()
	if !p.immediate() {
		order := s.sequence(p.cmdSN())
		if order == cmdSNEarly {
			var err error
			if p, order, err = c.keepInOrder(p); err != nil || order == cmdSNEarly {
				s.order.Unlock()
				return err
			}
		}
		if order == cmdSNOutside {
			s.order.Unlock()
			return p.discard()
		}
	}
	t, err := c.deliver(p)
	if err == nil {
		err = c.deliverEarly()
	}
	s.passBarriers()
	s.order.Unlock()
	if err != nil || p.opcode() != opSCSICommand {
		return err
	}
	return c.collect(t, p)
}

// deliver registers the header of a command, or handles another PDU. The caller holds
// the session's order.
func (c *conn) deliver(p *pdu) (*task, error) {
	if p.opcode() == opSCSICommand {
		return c.registerCommand(p)
	}
	return nil, c.handle(p)
}

// keepInOrder keeps a PDU that is early. If the PDU becomes next while its data is read,
// keepInOrder returns it with its data. The caller holds the session's order, which is
// released while data is read.
func (c *conn) keepInOrder(p *pdu) (*pdu, cmdSNOrder, error) {
	s := c.sess
	if p.src != nil {
		s.order.Unlock()
		k, err := p.keep()
		s.order.Lock()
		if err != nil {
			return nil, cmdSNEarly, c.droppedData(p, err)
		}
		p = k
	}
	order := s.sequence(p.cmdSN())
	if order != cmdSNEarly {
		return p, order, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &earlyPDU{conn: c, pdu: p}
	s.early[p.cmdSN()] = e
	s.earlyWaiting.Store(true)
	return nil, cmdSNEarly, s.countEarly(e, p)
}

// deliverEarly delivers the kept PDUs that are next by CmdSN, of all connections. It
// returns only errors of this connection; errors of others end those. The caller holds
// the session's order.
func (c *conn) deliverEarly() error {
	for e := c.sess.takeEarly(); e != nil; e = c.sess.takeEarly() {
		err := e.deliver()
		switch {
		case e.conn == c && err != nil:
			return err
		case err != nil:
			e.conn.endReader(err)
		case e.conn != c:
			e.conn.out.flush()
		}
	}
	return nil
}

// deliver delivers a kept PDU with the data that followed it.
func (e *earlyPDU) deliver() error {
	t, err := e.conn.deliver(e.pdu)
	if err != nil || e.pdu.opcode() != opSCSICommand {
		return err
	}
	if t != nil {
		t.kept = true
	}
	if err := e.conn.collect(t, e.pdu); err != nil {
		return err
	}
	for _, d := range e.data {
		if err := e.conn.takeDataOut(d); err != nil {
			return err
		}
	}
	return nil
}

// keepSharedDataOut keeps p if it belongs to a kept command, and returns errKept.
// Otherwise it returns the PDU to continue with.
func (c *conn) keepSharedDataOut(p *pdu) (*pdu, error) {
	s := c.sess
	find := func() *earlyPDU { // under order, so that no delivery is in progress
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.earlyCommand(p.itt(), c)
	}
	s.order.Lock()
	e := find()
	s.order.Unlock()
	if e == nil {
		return p, nil
	}
	k, err := p.keep()
	if err != nil {
		if err := c.droppedData(p, err); err != nil {
			return nil, err
		}
		return nil, errKept
	}
	s.order.Lock()
	defer s.order.Unlock()
	if find() != e {
		return k, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.data = append(e.data, k)
	if err := s.countEarly(e, k); err != nil {
		return nil, err
	}
	return nil, errKept
}

// forgetEarly drops the kept PDUs of connection c: they were not acknowledged, and the
// initiator may send them again on another connection. The caller holds mu.
func (s *session) forgetEarly(c *conn) {
	for sn, e := range s.early {
		if e.conn == c && e.pdu != nil {
			delete(s.early, sn)
			s.freeEarly(e)
		}
	}
	s.earlyWaiting.Store(len(s.early) > 0)
}

// barrier waits until all CmdSN before cmdSN are received.
type barrier struct {
	cmdSN  uint32
	passed chan struct{}
}

// barrierAt returns a channel that is closed when every command before cmdSN is
// delivered, or nil if that is already so. The caller holds order.
func (s *session) barrierAt(cmdSN uint32) <-chan struct{} {
	if !serialLess(s.exp.Load(), cmdSN) {
		return nil
	}
	b := barrier{cmdSN, make(chan struct{})}
	s.barriers = append(s.barriers, b)
	return b.passed
}

// passBarriers closes the barriers that are reached. The caller holds order.
func (s *session) passBarriers() {
	if len(s.barriers) == 0 {
		return
	}
	kept := s.barriers[:0]
	for _, b := range s.barriers {
		if serialLess(s.exp.Load(), b.cmdSN) {
			kept = append(kept, b)
		} else {
			close(b.passed)
		}
	}
	clear(s.barriers[len(kept):])
	s.barriers = kept
}

// fences waits for a peer to acknowledge responses.
type fences struct {
	waited atomic.Bool // list is not empty
	// acked is the last received ExpStatSN.
	acked atomic.Uint32

	mu   sync.Mutex // guards the fields below
	list []fence
}

type fence struct {
	statSN uint32
	passed chan struct{}
}

// acknowledge records the ExpStatSN of a PDU. Only the reader calls it.
func (f *fences) acknowledge(expStatSN uint32) {
	f.acked.Store(expStatSN)
	if f.waited.Load() {
		f.pass()
	}
}

func (f *fences) pass() {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := f.list[:0]
	for _, fe := range f.list {
		if serialLess(f.acked.Load(), fe.statSN) {
			kept = append(kept, fe)
		} else {
			close(fe.passed)
		}
	}
	f.list = kept
	f.waited.Store(len(kept) > 0)
}

// raise returns a channel that is closed when the peer has acknowledged every response
// before statSN.
func (f *fences) raise(statSN uint32) <-chan struct{} {
	fe := fence{statSN, make(chan struct{})}
	f.mu.Lock()
	f.list = append(f.list, fe)
	f.waited.Store(true)
	f.mu.Unlock()
	f.pass() // it may already be acknowledged
	return fe.passed
}

// awaitAcknowledgement waits until the initiator has acknowledged, on every other
// connection of the session, the responses sent so far (Response Fence, RFC 7143 4.2.3.3
// (e)). It waits for at most AbortTimeout, and not for connections that end.
func (c *conn) awaitAcknowledgement() {
	s := c.sess
	s.mu.Lock()
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	timer := time.NewTimer(s.srv.options().AbortTimeout)
	defer timer.Stop()
	for _, o := range conns {
		if o == c || !o.fullFeature.Load() {
			continue
		}
		passed := o.fences.raise(o.out.nextStatSN())
		select {
		case <-passed:
			continue
		default:
			o.ping() // the response acknowledges
		}
		select {
		case <-passed:
		case <-o.left:
		case <-timer.C:
			s.log.WithError(os.ErrDeadlineExceeded).Debug("responses before task management not acknowledged")
			return
		}
	}
}
