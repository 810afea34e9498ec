package iscsi

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"odx/target/handover"
)

// Readers of a server that is being suspended.
//
// A reader that finds its connection suspended begins to drain it: it reads on only while
// commands of its session run, because they may wait for Data-Out. It sets all other PDUs
// aside, without processing them: another process will. Then it parks, which leaves the
// connection to Suspend.

var (
	// errParked ends a reader that has left its connection to Suspend.
	errParked = errors.New("reader is parked")
	// errNotSuspended is why a connection ends that cannot be handed over.
	errNotSuspended = errors.New("cannot be handed over to another process")
)

// Reasons why a connection cannot be handed over.
var (
	errStillRuns  = notSuspended("commands have not ended, or an exchange is in progress")
	errUnreceived = notSuspended("responses are not received")
	errTooMuch    = notSuspended("too much was received ahead of what commands wait for")
)

func notSuspended(why string) error { return &suspendError{why} }

// suspendError is an errNotSuspended with its reason.
type suspendError struct{ why string }

func (e *suspendError) Error() string { return errNotSuspended.Error() + ": " + e.why }
func (e *suspendError) Unwrap() error { return errNotSuspended }

// suspension is a suspension of the server in progress.
type suspension struct {
	// ctx ends when commands had their time.
	ctx context.Context
	// rest ends restLimit later, until when commands may run that waited for those of
	// connections that end with ctx.
	rest context.Context
}

// restLimit bounds what commands may take after those that they waited for were aborted.
const restLimit = 100 * time.Millisecond

// newSuspension returns a suspension whose commands have the time of ctx. Its end releases
// what it has.
func newSuspension(ctx context.Context) (by *suspension, end func()) {
	rest, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(restLimit, cancel)
		context.AfterFunc(rest, func() { timer.Stop() })
	})
	return &suspension{ctx, rest}, func() { stop(); cancel() }
}

// over reports whether commands had their time.
func (p *suspension) over() bool { return p.ctx.Err() != nil }

// minDrain is the minimum time for the responses of a connection, whose sending needs no
// more than a few system calls if the initiator receives them.
const minDrain = 5 * time.Millisecond

// left returns the time that is left, 0 for no limit.
func (p *suspension) left() time.Duration {
	end, ok := p.ctx.Deadline()
	switch {
	case p.over():
		return minDrain
	case !ok:
		return 0
	}
	return max(time.Until(end), minDrain)
}

// suspendedConn is the state of a connection in a suspension.
type suspendedConn struct {
	// by is the suspension, nil for none.
	by atomic.Pointer[suspension]
	// fate is decided once, by the reader that parks or by Suspend, which closes the
	// connection.
	fate   atomic.Bool
	parked chan struct{} // closed by the reader

	// The reader owns the fields below until it has parked.

	// never: a logout has begun.
	never bool
	// aside are PDUs that were received and not processed, as received. The last one may
	// be incomplete; the rest of it is then next in the reader.
	aside []byte
}

// aLongTimeAgo is a deadline that ends reads at once.
var aLongTimeAgo = time.Unix(1, 0)

// readOn reports whether the reader continues in the middle of a PDU after its read was
// interrupted by a suspension.
func (c *conn) readOn(err error) bool {
	by := c.suspended.by.Load()
	if by == nil || !c.in.inPDU || !errors.Is(err, os.ErrDeadlineExceeded) || c.nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	return !by.over() && c.ending.Load() == nil
}

// drain is the reader of a suspended connection, until it parks or the connection ends.
func (c *conn) drain(by *suspension) error {
	for {
		if err := c.sendResponses(); err != nil {
			return err
		}
		// The deadline first: what ends the wait sets it after it has changed what is
		// checked below.
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		switch reason := c.ending.Load(); {
		case reason != nil:
			return *reason
		case c.sess.isQuiet():
			return c.park(by)
		case by.over() && (by.rest.Err() != nil || c.collectsAny()):
			return errStillRuns
		}
		switch err := c.in.next(&c.pdu); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		}
		c.fences.acknowledge(c.pdu.expStatSN())
		if err := c.drainPDU(&c.pdu); err != nil {
			return err
		}
	}
}

// drainPDU processes a PDU that a command waits for, and sets any other aside.
func (c *conn) drainPDU(p *pdu) error {
	if p.opcode() == opDataOut && c.collects(p.itt()) {
		return c.handleDataOut(p)
	}
	if c.srv.aside.Add(int64(bhsLength+p.ahsLength()+p.dataSegmentLength()+2*digestLength)) > handover.MaxUnread {
		return errTooMuch
	}
	k, err := p.keep()
	k.got = p.got
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return c.droppedData(p, err)
	}
	c.setAside(k, err)
	return nil
}

// setAside appends a PDU to those that are not processed: with its data, or after an error
// with the part of it that was read.
func (c *conn) setAside(k *pdu, err error) {
	c.suspended.aside = c.in.appendHeader(c.suspended.aside, k)
	if err != nil {
		c.suspended.aside = append(c.suspended.aside, k.kept[:k.got]...)
		return
	}
	c.suspended.aside = c.in.appendSegment(c.suspended.aside, k.kept)
}

// appendHeader appends the header of a PDU as it was on the wire.
func (r *reader) appendHeader(b []byte, p *pdu) []byte {
	b = append(append(b, p.bhs[:]...), p.ahs...)
	if r.headerDigest {
		var sum [digestLength]byte
		digest(0).add(p.bhs[:]).add(p.ahs).put(sum[:])
		b = append(b, sum[:]...)
	}
	return b
}

// appendSegment appends a data segment as it was on the wire.
func (r *reader) appendSegment(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	pad := zeroPad[:padding(len(data))]
	b = append(append(b, data...), pad...)
	if r.dataDigest {
		var sum [digestLength]byte
		digest(0).add(data).add(pad).put(sum[:])
		b = append(b, sum[:]...)
	}
	return b
}

// collects reports whether the command with the given tag waits for Data-Out on c.
func (c *conn) collects(itt uint32) bool {
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[itt]
	return t != nil && t.conn == c && t.state == taskCollecting
}

// collectsAny reports whether any command waits for Data-Out on c.
func (c *conn) collectsAny() bool {
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.conn == c && t.state == taskCollecting {
			return true
		}
	}
	return false
}

// putBack sets the command of t aside, as if it had not arrived, if reading its immediate
// data was interrupted and nothing depends on the command. p is its PDU.
func (c *conn) putBack(t *task, p *pdu, err error) bool {
	n := p.dataSegmentLength()
	if !errors.Is(err, os.ErrDeadlineExceeded) || p.src == nil || len(p.ahs) > 0 ||
		t.early || t.failure != nil || n > int(t.out.want) || n > len(t.out.buf) {
		return false
	}
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.aborted || !t.immediate && s.exp.Load() != t.cmdSN+1 {
		return false
	}
	c.setAside(&pdu{bhs: p.bhs, kept: t.out.buf, got: p.got}, err)
	if !t.immediate {
		s.exp.Store(t.cmdSN)
		s.limit.Add(^uint32(0)) // removeTask frees a place that is not taken
	}
	s.removeTask(t)
	t.recycle()
	return true
}

// isQuiet reports whether no command or task management function of the session runs,
// and no worker that may still send.
func (s *session) isQuiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet()
}

// quiet is isQuiet. The caller holds mu.
func (s *session) quiet() bool { return len(s.tasks) == 0 && s.executing == 0 && s.running == 0 }

// noteQuiet ends the wait of readers once a suspended session is quiet. The caller holds
// mu.
func (s *session) noteQuiet() {
	if !s.suspended || !s.quiet() {
		return
	}
	for _, c := range s.conns {
		if err := c.nc.SetReadDeadline(aLongTimeAgo); err != nil {
			c.close()
		}
	}
}

// park waits until the responses are sent, and leaves the connection to Suspend.
func (c *conn) park(by *suspension) error {
	c.sess.mu.Lock()
	draining := c.sess.draining
	c.sess.mu.Unlock()
	switch {
	case draining || c.suspended.never || c.text.ttt != reservedTag:
		return errStillRuns
	case !c.out.waitBelow(0, by.left()):
		return errUnreceived
	case !c.suspended.fate.CompareAndSwap(false, true):
		return errStillRuns
	}
	return errParked
}

// unread returns what was received and not processed, in the order of its arrival. The
// reader has parked.
func (c *conn) unread() []byte {
	b := c.suspended.aside
	if c.in.cut {
		b = append(b, c.pdu.bhs[:]...)
	}
	b = append(b, c.in.buf.Bytes[c.in.r:c.in.w]...)
	if before, ok := c.in.src.(*unreadFirst); ok {
		b = append(b, before.bytes...)
	}
	return b
}
