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
// A session whose initiator agreed on more than one connection is shared: PDUs
// with consecutive CmdSN arrive on different connections, whose readers run side
// by side. Its order lock makes them one sequence: a PDU is given its turn and
// delivered under the lock, where delivered means for a command that it is one
// of the session's tasks and prepared, for anything else that it was handled.
// Nobody waits for a peer under the lock: the data of a command is read after,
// that of anything else before.
//
// A PDU that came before its turn is delivered by the reader that brings the
// one before it, whichever connection that is. Everything a command leads to
// goes over the connection that the command came in by: its allegiance.
//
// Sessions with one connection, which is nearly all of them, take no such lock.

// errKept is what keepInOrder returns for a PDU that waits for its turn.
var errKept = errors.New("kept for its turn")

// dispatchShared is dispatch of a request for a shared session.
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

// deliver hands over the header of a command, or handles another PDU. The
// session's order is held.
func (c *conn) deliver(p *pdu) (*task, error) {
	if p.opcode() == opSCSICommand {
		return c.beginCommand(p)
	}
	return nil, c.handle(p)
}

// keepInOrder keeps a PDU that is ahead of its turn. While its data is read, its
// turn may come: then it is returned with its data. The session's order is held,
// but not while the data is read.
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

// deliverEarly delivers the PDUs whose turn has come, of all connections. An
// error is this connection's; others end by theirs. The session's order is held.
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

// keepSharedDataOut keeps p if it belongs to a command that waits for its turn:
// errKept. Otherwise it returns the PDU to go on with.
func (c *conn) keepSharedDataOut(p *pdu) (*pdu, error) {
	s := c.sess
	find := func() *earlyPDU { // under order, so that no delivery is under way
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

// forgetEarly drops what connection c brought before its turn: it was never
// acknowledged, and the initiator may send it again elsewhere. mu is held.
func (s *session) forgetEarly(c *conn) {
	for sn, e := range s.early {
		if e.conn == c && e.pdu != nil {
			delete(s.early, sn)
			s.freeEarly(e)
		}
	}
	s.earlyWaiting.Store(len(s.early) > 0)
}

// barrier is a wait for the CmdSN before one to be received.
type barrier struct {
	cmdSN  uint32
	passed chan struct{}
}

// barrierAt returns a channel that is closed when every command before cmdSN
// was delivered; nil when that is so. order is held.
func (s *session) barrierAt(cmdSN uint32) <-chan struct{} {
	if !serialLess(s.exp.Load(), cmdSN) {
		return nil
	}
	b := barrier{cmdSN, make(chan struct{})}
	s.barriers = append(s.barriers, b)
	return b.passed
}

// passBarriers ends the waits that are over. order is held.
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

// fences are waits for a peer to acknowledge the responses that it was sent.
type fences struct {
	waited atomic.Bool // there are some
	// acked is the highest ExpStatSN that was received.
	acked atomic.Uint32

	mu   sync.Mutex // guards what follows
	list []fence
}

type fence struct {
	statSN uint32
	passed chan struct{}
}

// acknowledge notes the ExpStatSN of a PDU. Only the reader calls it.
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

// raise returns a channel that is closed when the peer has acknowledged every
// response before statSN.
func (f *fences) raise(statSN uint32) <-chan struct{} {
	fe := fence{statSN, make(chan struct{})}
	f.mu.Lock()
	f.list = append(f.list, fe)
	f.waited.Store(true)
	f.mu.Unlock()
	f.pass() // perhaps it was acknowledged before
	return fe.passed
}

// awaitAcknowledgement waits until the initiator has acknowledged, on every
// connection of the session but c, the responses sent so far (the Response
// Fence of RFC 7143 4.2.3.3 (e)); no longer than AbortTimeout, and not for
// connections that end.
func (c *conn) awaitAcknowledgement() {
	s := c.sess
	s.mu.Lock()
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	timer := time.NewTimer(s.srv.opts.AbortTimeout)
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
			o.ping() // the answer acknowledges
		}
		select {
		case <-passed:
		case <-o.left:
		case <-timer.C:
			s.log.WithError(os.ErrDeadlineExceeded).Debug("responses before task management were not acknowledged")
			return
		}
	}
}
