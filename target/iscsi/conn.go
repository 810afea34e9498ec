package iscsi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// maxQueued is how many bytes may wait for a peer that does not read before
// nothing more is read from it.
const maxQueued = 8 << 20

// maxLoose is the same for answers to PDUs that take no place in the CmdSN
// window (pings, rejects, ...), in bytes of memory.
const maxLoose = 128 << 10

// conn is one connection. Its reader (serve, then read) has all of it but out,
// which locks for itself.
type conn struct {
	srv  *Server
	nc   net.Conn
	log  *logrus.Entry
	in   *reader
	out  sender
	sess *session
	cid  uint16
	// at is the portal that the connection came in by, and group the tag of its
	// portal group.
	at    Portal
	group uint16
	// params are the session's, as they apply to this connection.
	params params

	turns     turns // who is the reader
	solitude  solitude
	pdu       pdu // the one that is being handled
	unflushed int // commands whose responses the reader has not flushed
	unsettled unsettled
	text      textExchange

	ttt uint32 // last Target Transfer Tag; guarded by the session's mu

	pinger pinger // belongs to the watchdog
	stall  stall  // belongs to the watchdog
	// dataOuts counts the Data-Out PDUs that came.
	dataOuts atomic.Uint32
	// fullFeature is set when the login is over.
	fullFeature atomic.Bool
	// notReading is set while the reader waits for the peer to take data.
	notReading atomic.Bool

	// left is closed when the connection has left its session.
	left chan struct{}
	// farewell is the Logout Response that ends the connection, set before the
	// reader is ended.
	farewell *outPDU
	// ending is the reason for which somebody else ends the reader (endReader).
	ending atomic.Pointer[error]
	fences fences

	closeOnce sync.Once
}

// violation is a PDU that ends the connection; the initiator gets a Reject.
type violation struct {
	reason byte
	err    error
}

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

func protocolError(format string, args ...any) error {
	return &violation{rejectProtocolError, fmt.Errorf("protocol error: "+format, args...)}
}

// serve is a connection's life: login, then PDUs until it ends. lost says that
// it goes on with another reader.
func (c *conn) serve() (lost bool) {
	err := c.login()
	if err != nil {
		c.terminate(err)
		return false
	}
	c.srv.wg.Add(1)
	go func() {
		defer c.srv.wg.Done()
		c.out.run()
	}()
	return c.read()
}

// read is the reader in full feature phase.
func (c *conn) read() (lost bool) {
	err := c.readPDUs()
	if err == errReaderLost {
		return true
	}
	if reason := c.ending.Load(); reason != nil {
		err = *reason
	}
	c.settleLast()
	c.terminate(err)
	return false
}

// takeOver is read for the reader that follows one that is stuck.
func (c *conn) takeOver() (lost bool) {
	c.solitude.company = companyLasts
	return c.read()
}

// endReader has the reader end the connection for the given reason, as soon as
// it would wait for the peer.
func (c *conn) endReader(reason error) {
	if c.ending.CompareAndSwap(nil, &reason) && c.nc.SetReadDeadline(time.Unix(1, 0)) != nil {
		c.close()
	}
}

// readPDUs handles PDUs until an error ends that.
func (c *conn) readPDUs() error {
	for {
		if err := c.handleEarly(); err != nil {
			return err
		}
		if !c.in.ready() {
			if err := c.answer(); err != nil {
				return err
			}
		}
		if c.out.bytes.Load() > maxQueued && !c.awaitPeer(maxBatchBytes) || c.out.loose.Load() > maxLoose && !c.awaitPeer(0) {
			return net.ErrClosed
		}
		if err := c.in.next(&c.pdu); err != nil {
			return err
		}
		if c.sess.shared {
			c.fences.acknowledge(c.pdu.expStatSN())
		}
		c.solitude.heed(c.pdu.expStatSN())
		if err := c.dispatch(&c.pdu); err != nil {
			return err
		}
	}
}

// awaitPeer waits until no more than limit bytes are left of what the peer was
// sent. Whether it is still there, the writer finds out (sendTimeout).
func (c *conn) awaitPeer(limit int64) bool {
	c.notReading.Store(true)
	defer c.notReading.Store(false)
	return c.out.waitBelow(limit, 0)
}

// dispatch handles one PDU: in the order of CmdSN, unless it is immediate.
func (c *conn) dispatch(p *pdu) error {
	switch op := p.opcode(); op {
	case opDataOut:
		return c.handleDataOut(p)
	case opSNACK:
		c.reject(p, rejectSNACK) // RFC 7143 11.16: no data acknowledgement or retransmission at level 0
		return p.discard()
	case opNopOut, opSCSICommand, opTMFRequest, opText, opLogout:
		if c.sess.shared {
			return c.dispatchShared(p)
		}
		if p.immediate() {
			return c.handle(p)
		}
	case opLogin:
		return protocolError("login in full feature phase")
	default:
		return malformed("opcode %#x", op)
	}
	switch c.sess.sequence(p.cmdSN()) {
	case cmdSNNext:
		return c.handle(p)
	case cmdSNEarly:
		return c.keepEarly(p)
	default:
		return p.discard() // RFC 7143 4.2.2.1: silently
	}
}

// handleEarly handles the PDUs that had come before their turn, in a session
// that is not shared.
func (c *conn) handleEarly() error {
	if c.sess.shared {
		return nil
	}
	for {
		e := c.sess.takeEarly()
		if e == nil {
			return nil
		}
		// A command whose data came with it runs, and may lose the reader, only
		// with the last of that data: nothing of e is left then.
		if err := c.handle(e.pdu); err != nil {
			return err
		}
		for _, d := range e.data {
			if err := c.handleDataOut(d); err != nil {
				return err
			}
		}
	}
}

// handle does what a PDU asks for whose turn it is.
func (c *conn) handle(p *pdu) error {
	switch p.opcode() {
	case opSCSICommand:
		return c.handleCommand(p)
	case opNopOut:
		return c.handleNopOut(p)
	case opTMFRequest:
		return c.handleTMF(p)
	case opText:
		return c.handleText(p)
	default:
		return c.handleLogout(p)
	}
}

// handleNopOut answers a ping (RFC 7143 11.18) or takes the answer to ours.
func (c *conn) handleNopOut(p *pdu) error {
	if p.itt() == reservedTag {
		// The answer to our ping, or a mere carrier of ExpStatSN: that it was
		// read is all that counts.
		c.sess.releasePlace(p)
		return p.discard()
	}
	r := c.out.get(opNopIn, p.itt())
	r.put32(20, reservedTag)
	if n := p.dataSegmentLength(); n > 0 {
		// No more goes back than the initiator takes.
		n = min(n, int(c.params.peerMaxRecv))
		r.share = c.sess.share
		var ok bool
		if r.charge, ok = c.srv.budget.take(r.share, bufferCharge(n)); !ok {
			c.out.put(r)
			c.sess.releasePlace(p)
			c.reject(p, rejectOutOfResources)
			return p.discard()
		}
		r.buf = c.srv.opts.Pool.Get(n)
		r.data = r.buf.Bytes
		if err := p.readData(r.data); err != nil {
			c.out.put(r)
			c.sess.releasePlace(p)
			return c.droppedData(p, err)
		}
	}
	c.sess.releasePlace(p)
	c.out.queue(r, statSNAdvance)
	return nil
}

// reject queues a Reject PDU with the header of p (RFC 7143 11.17).
func (c *conn) reject(p *pdu, reason byte) {
	r := c.out.get(opReject, reservedTag)
	r.bhs[2] = reason
	r.data = r.small[:bhsLength]
	copy(r.data, p.bhs[:])
	c.out.queue(r, statSNAdvance)
}

// terminate ends the connection, with one line in the log that says why.
func (c *conn) terminate(err error) {
	log := c.log
	if c.sess != nil {
		log = c.sess.log
		c.sess.leave(c)
	}
	var v *violation
	var refused *loginError
	switch {
	case errors.As(err, &refused):
		log.Warn(err)
		c.linger()
	case errors.Is(err, errLoggedOut):
		// The nexus is gone before the initiator hears of it: what it held is free.
		log.Debug("initiator logged out")
		c.out.queue(c.farewell, statSNAdvance)
		c.linger()
	case errors.Is(err, errTargetReset):
		log.Warn(err)
		c.linger()
	case errors.As(err, &v):
		log.WithError(err).Warn("connection closed")
		c.reject(&c.pdu, v.reason)
		c.linger()
	case errors.Is(err, errMalformed) && c.sess != nil:
		log.WithError(err).Warn("connection closed")
		c.reject(&c.pdu, rejectInvalidPDUField)
		c.linger()
	case hangUp(err):
		log.WithError(err).Debug("connection ended")
	default:
		log.WithError(err).Warn("connection closed")
	}
	c.close()
	c.in.release()
	c.srv.forget(c)
}

// hangUp reports whether err is only a connection that went away.
func hangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// linger lets the last PDUs reach the initiator: closing a socket while input
// is unread would throw them away.
func (c *conn) linger() {
	timeout := c.srv.opts.LogoutTimeout
	if !c.out.waitBelow(0, timeout) {
		return
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(timeout)) != nil {
		return
	}
	for {
		if _, err := c.nc.Read(c.in.buf.Bytes); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !hangUp(err) {
				c.log.WithError(err).Debug("reading after the end")
			}
			return
		}
	}
}

// close closes the socket, which ends reader and writer. Anyone may call it.
func (c *conn) close() {
	c.closeOnce.Do(func() {
		c.out.close()
		if err := c.nc.Close(); err != nil && !hangUp(err) {
			c.log.WithError(err).Debug("closing the socket")
		}
	})
}
