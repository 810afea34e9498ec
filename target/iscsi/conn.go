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

// maxQueued is the number of queued bytes above which the reader stops, because the peer
// does not receive.
const maxQueued = 8 << 20

// maxUnwindowed is the same limit for responses that do not occupy a place in the CmdSN
// window (pings, rejects, ...), in bytes of memory.
const maxUnwindowed = 128 << 10

// conn is a connection. Its reader (serve, then read) owns all fields except out, which
// has its own lock.
type conn struct {
	srv  *Server
	nc   net.Conn
	log  *logrus.Entry
	in   *reader
	out  sender
	sess *session
	cid  uint16
	// at is the portal of the connection, group the tag of its portal group.
	at    Portal
	group uint16
	// params are the session's parameters with those of this connection.
	params params

	turns      turns // owner of the reader's role
	closedLoop closedLoop
	pdu        pdu // being handled
	unflushed  int // commands whose responses the reader has not flushed
	unsettled  unsettled
	text       textExchange

	ttt uint32 // last Target Transfer Tag; guarded by the session's mu

	pinger pinger // belongs to the watchdog
	stall  stall  // belongs to the watchdog
	// dataOuts counts the received Data-Out PDUs.
	dataOuts atomic.Uint32
	// fullFeature is set when the login is complete.
	fullFeature atomic.Bool
	// leaving is set when the initiator is to log out: new commands are refused.
	leaving atomic.Bool
	// askedToLogOut is set when that was sent.
	askedToLogOut atomic.Bool
	// notReading is set while the reader waits for the peer to receive.
	notReading atomic.Bool

	// left is closed when the connection has left its session.
	left chan struct{}
	// logoutResponse is the last PDU of the connection, set before the reader is ended.
	logoutResponse *outPDU
	// ending is why another goroutine ends the reader (endReader).
	ending atomic.Pointer[error]
	fences fences

	suspended suspendedConn
	// wrote is closed when the writer has ended.
	wrote chan struct{}

	closeOnce sync.Once
	closed    atomic.Bool
}

// violation is an invalid PDU that ends the connection; the initiator receives a Reject.
type violation struct {
	reason byte
	err    error
}

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

func protocolError(format string, args ...any) error {
	return &violation{rejectProtocolError, fmt.Errorf("protocol error: "+format, args...)}
}

// serve runs the connection: the login, then PDUs until the connection ends. lost reports
// that another reader has taken over.
func (c *conn) serve() (lost bool) {
	err := c.login()
	if err != nil {
		c.terminate(err)
		return false
	}
	c.startWriter()
	c.srv.noteSettled()
	return c.read()
}

// startWriter starts the writer.
func (c *conn) startWriter() {
	c.srv.wg.Add(1)
	go func() {
		defer c.srv.wg.Done()
		defer close(c.wrote)
		c.out.writeLoop()
	}()
}

// read is the reader in full feature phase. lost is as for serve.
func (c *conn) read() (lost bool) {
	err := c.readPDUs()
	switch {
	case err == errReaderLost:
		return true
	case err == errParked:
		close(c.suspended.parked)
		return false
	}
	if reason := c.ending.Load(); reason != nil {
		err = *reason
	}
	c.settleBeforeClose()
	c.terminate(err)
	return false
}

// takeOver is read for the reader that replaces a stuck one.
func (c *conn) takeOver() (lost bool) {
	c.closedLoop.backoff = backoffPDUs
	return c.read()
}

// endReader makes the reader end the connection for the given reason, as soon as it
// would wait for the peer.
func (c *conn) endReader(reason error) {
	if c.ending.CompareAndSwap(nil, &reason) && c.nc.SetReadDeadline(time.Unix(1, 0)) != nil {
		c.close()
	}
}

// readPDUs handles PDUs until an error.
func (c *conn) readPDUs() error {
	for {
		if err := c.handleEarly(); err != nil {
			return err
		}
		if by := c.suspended.by.Load(); by != nil {
			return c.drain(by)
		}
		if !c.in.ready() {
			if err := c.sendResponses(); err != nil {
				return err
			}
		}
		if c.out.bytes.Load() > maxQueued && !c.awaitPeer(maxBatchBytes) || c.out.unwindowed.Load() > maxUnwindowed && !c.awaitPeer(0) {
			return net.ErrClosed
		}
		if err := c.in.next(&c.pdu); err != nil {
			if c.suspended.by.Load() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			return err
		}
		if c.sess.shared {
			c.fences.acknowledge(c.pdu.expStatSN())
		}
		c.closedLoop.received(c.pdu.expStatSN())
		if err := c.dispatch(&c.pdu); err != nil {
			return err
		}
	}
}

// awaitPeer waits until at most limit bytes are queued for the peer. The writer detects
// whether the peer is still connected (sendTimeout).
func (c *conn) awaitPeer(limit int64) bool {
	c.notReading.Store(true)
	defer c.notReading.Store(false)
	return c.out.waitBelow(limit, 0)
}

// dispatch handles a PDU, in CmdSN order unless it is immediate.
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

// handleEarly handles the kept PDUs that are next by CmdSN, in a session that is not
// shared.
func (c *conn) handleEarly() error {
	if c.sess.shared {
		return nil
	}
	for {
		e := c.sess.takeEarly()
		if e == nil {
			return nil
		}
		// A command with data runs, and may lose the reader, only with the last PDU of
		// that data; e is not accessed afterwards.
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

// handle handles a PDU that is next by CmdSN, or immediate.
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

// handleNopOut responds to a ping (RFC 7143 11.18), or receives the response to ours.
func (c *conn) handleNopOut(p *pdu) error {
	if p.itt() == reservedTag {
		// A response to our ping, or a carrier of ExpStatSN: reader.reads counts it.
		c.sess.releasePlace(p)
		return p.discard()
	}
	r := c.out.get(opNopIn, p.itt())
	r.put32(20, reservedTag)
	if n := p.dataSegmentLength(); n > 0 {
		// RFC 7143 11.18.4: at most MaxRecvDataSegmentLength of the initiator.
		n = min(n, int(c.params.peerMaxRecv))
		if !c.chargeOut(r, n) {
			c.out.put(r)
			c.sess.releasePlace(p)
			c.reject(p, rejectOutOfResources)
			return p.discard()
		}
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

// terminate ends the connection and logs the reason.
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
		c.awaitEnd(c.srv.options().LogoutTimeout / 4)
		c.linger()
	case errors.Is(err, errLoggedOut):
		// The initiator receives the response after the nexus and its state are gone.
		log.Debug("initiator logged out")
		c.out.queue(c.logoutResponse, statSNAdvance)
		c.linger()
	case errors.Is(err, errTargetReset):
		log.Warn(err)
		c.linger()
	case errors.Is(err, errNotLoggedOut):
		log.Warn(err)
		c.announceDrop()
		c.linger()
	case errors.As(err, &v):
		log.WithError(err).Warn("connection closed")
		c.reject(&c.pdu, v.reason)
		c.linger()
	case errors.Is(err, errMalformed) && c.sess != nil:
		log.WithError(err).Warn("connection closed")
		c.reject(&c.pdu, rejectInvalidPDUField)
		c.linger()
	case isDisconnect(err):
		log.WithError(err).Debug("connection ended")
	default:
		log.WithError(err).Warn("connection closed")
	}
	c.close()
	c.endText()
	c.in.release()
	c.srv.forget(c)
}

// isDisconnect reports whether err only means that the peer has disconnected.
func isDisconnect(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// linger waits until the initiator has received the last PDUs: closing a socket with
// unread input discards them.
func (c *conn) linger() {
	timeout := c.srv.options().LogoutTimeout
	if !c.out.waitBelow(0, timeout) {
		return
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.awaitEnd(timeout)
}

// awaitEnd waits until the initiator has closed the connection, at most for a time. An initiator
// that is refused closes it, as the target must (RFC 7143 11.13.5): it is first, since Linux
// crashes when the target ends a connection which iscsid is just closing (iscsi_tcp of 6.1,
// iscsi_sw_tcp_release_conn).
func (c *conn) awaitEnd(limit time.Duration) {
	if c.nc.SetReadDeadline(time.Now().Add(limit)) != nil {
		return
	}
	for {
		if _, err := c.nc.Read(c.in.buf.Bytes); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !isDisconnect(err) {
				c.log.WithError(err).Debug("read from a connection that ends")
			}
			return
		}
	}
}

// close closes the socket, which ends reader and writer. It is safe for concurrent use.
func (c *conn) close() {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		c.out.close()
		if err := c.nc.Close(); err != nil && !isDisconnect(err) {
			c.log.WithError(err).Debug("close socket")
		}
	})
}
