package initiator

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options are the arguments of Dial.
type Options struct {
	// InitiatorName is our iSCSI name.
	InitiatorName string
	// ISID is the session's part of the name of our port (RFC 7143 11.12.5): with the same
	// one, a session takes the place of an earlier one and has its persistent
	// reservations. The zero value means a random one.
	ISID [6]byte
	URL  URL
}

// ErrClosed is the error of a command on a session that was closed.
var ErrClosed = errors.New("the iSCSI session is closed")

// ErrLogoutRequested is the error of a command after the target has asked for a logout (RFC
// 7143 11.9.1), as it does before it ends a session: it shuts down, or this initiator may not
// use it any more.
var ErrLogoutRequested = errors.New("the target has asked to log out")

// Session is a normal session of one connection with a target. Its methods may
// be called concurrently.
type Session struct {
	conn   net.Conn
	in     *bufio.Reader
	limits limits
	lun    uint16
	reader sync.WaitGroup

	sending sync.Mutex // held while a PDU is written; before mu

	mu        sync.Mutex // guards what follows
	tasks     map[uint32]*task
	nextITT   uint32
	cmdSN     uint32
	maxCmdSN  uint32
	expStatSN uint32
	moved     chan struct{} // closed when maxCmdSN moves
	// leaving is set once the target has asked for a logout, and closed when no command
	// runs any more.
	leaving   chan struct{}
	loggedOut chan struct{} // closed by the answer to our logout

	ended chan struct{} // closed when the reader has ended
	err   error         // why; valid once ended is closed
}

// Dial connects and logs in. It follows a target that has moved. ctx bounds the
// login alone.
func Dial(ctx context.Context, o Options) (*Session, error) {
	o.InitiatorName = cmp.Or(o.InitiatorName, "iqn.2026-11.example.odx:initiator")
	address := o.URL.Address
	for range maxRedirects {
		s, moved, err := dial(ctx, address, &o)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", o.URL, err)
		}
		if s != nil {
			return s, nil
		}
		address = moved
	}
	return nil, fmt.Errorf("%v: the target sends us on and on", o.URL)
}

// maxRedirects bounds how often a login is sent elsewhere.
const maxRedirects = 4

// dial logs in at an address; moved is the address of a redirection if s is nil.
func dial(ctx context.Context, address string, o *Options) (s *Session, moved string, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, "", err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	s, moved, err = establish(conn, o)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return s, moved, nil
	}
	if s != nil {
		s.end()
	}
	return nil, "", cmp.Or(ctx.Err(), err)
}

// establish logs in over conn, which it closes unless there is a session.
func establish(conn net.Conn, o *Options) (s *Session, moved string, err error) {
	l := login{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), options: o, keys: map[string]string{}}
	if l.isid = o.ISID; l.isid == [6]byte{} {
		rand.Read(l.isid[:])
		l.isid[0] = 0x80 // random (RFC 7143 11.12.5)
	}
	moved, err = l.run()
	var n limits
	if err == nil && moved == "" {
		n, err = l.limits()
	}
	if err != nil || moved != "" {
		conn.Close()
		return nil, moved, err
	}
	s = &Session{
		conn: conn, in: l.in, limits: n, lun: o.URL.LUN,
		tasks: map[uint32]*task{}, cmdSN: l.cmdSN, maxCmdSN: l.maxCmdSN, expStatSN: l.expStatSN,
		moved: make(chan struct{}), loggedOut: make(chan struct{}), ended: make(chan struct{}),
	}
	s.reader.Go(s.read)
	return s, "", nil
}

// Close logs out and ends the session; commands that still run fail.
func (s *Session) Close() error {
	s.logOut()
	return s.end()
}

// logOut sends a logout and waits for the response.
func (s *Session) logOut() {
	h := &header{0: opLogout | bitImmediate, 1: bitFinal}
	s.conn.SetWriteDeadline(time.Now().Add(logoutTime))
	if s.sendNumbered(h) == nil {
		select {
		case <-s.loggedOut:
		case <-s.ended:
		case <-time.After(logoutTime):
		}
	}
}

// logoutTime bounds how long we wait for a polite end.
const logoutTime = 2 * time.Second

// sendNumbered sends a PDU that takes a task tag and does not count as a
// command.
func (s *Session) sendNumbered(h *header) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	h.put32(16, s.takeITT())
	h.put32(24, s.cmdSN)
	h.put32(28, s.expStatSN)
	s.mu.Unlock()
	return send(s.conn, h, nil)
}

// end closes the connection and waits for the reader.
func (s *Session) end() error {
	err := s.conn.Close()
	s.reader.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// takeITT returns a task tag that is free; s.mu is held.
func (s *Session) takeITT() uint32 {
	for {
		s.nextITT++
		if _, taken := s.tasks[s.nextITT]; !taken && s.nextITT != reservedTag {
			return s.nextITT
		}
	}
}

// read takes PDUs until the connection ends.
func (s *Session) read() {
	err := s.receive()
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.leaving != nil:
		err = ErrLogoutRequested
	case errors.Is(err, net.ErrClosed):
		err = ErrClosed
	}
	s.err = fmt.Errorf("iSCSI connection: %w", err)
	close(s.ended)
}

func (s *Session) receive() error {
	for {
		h, err := receiveHeader(s.in)
		if err != nil {
			return err
		}
		if err := s.dispatch(h); err != nil {
			return err
		}
	}
}

// dispatch gives a PDU to whom it concerns.
func (s *Session) dispatch(h *header) error {
	switch h.opcode() {
	case opDataIn, opSCSIResponse, opR2T:
		return s.forTask(h)
	case opNopIn:
		return s.answerPing(h)
	case opLogoutResponse:
		s.number(h)
		s.sayLoggedOut()
		return receiveData(s.in, h, nil)
	case opAsync:
		s.number(h)
		switch event := h[36]; event {
		case asyncSCSI:
		case asyncLogoutRequest:
			s.leave(time.Duration(h.get16(42)) * time.Second)
		default:
			return fmt.Errorf("the target ends the session (asynchronous event %d)", event)
		}
		return receiveData(s.in, h, nil)
	case opReject:
		return fmt.Errorf("the target rejected a PDU, reason %#02x", h[2])
	default:
		return fmt.Errorf("unexpected PDU with opcode %#02x", h.opcode())
	}
}

// sayLoggedOut notifies Close, once.
func (s *Session) sayLoggedOut() {
	select {
	case <-s.loggedOut:
	default:
		close(s.loggedOut)
	}
}

// number takes the sequence numbers of a PDU that has a StatSN.
func (s *Session) number(h *header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expStatSN = h.get32(24) + 1
	s.openWindow(h)
}

// openWindow takes MaxCmdSN; s.mu is held.
func (s *Session) openWindow(h *header) {
	if limit := h.get32(32); int32(limit-s.maxCmdSN) > 0 {
		s.maxCmdSN = limit
		close(s.moved)
		s.moved = make(chan struct{})
	}
}

// answerPing answers a NOP-In of the target. It goes out from a goroutine of
// its own, as the reader must not wait for the socket; a target sends no second
// one before it.
func (s *Session) answerPing(h *header) error {
	if err := receiveData(s.in, h, nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.openWindow(h)
	answer := &header{0: opNopOut | bitImmediate, 1: bitFinal}
	copy(answer[8:16], h[8:16])
	answer.put32(16, reservedTag)
	copy(answer[20:24], h[20:24])
	answer.put32(24, s.cmdSN)
	answer.put32(28, s.expStatSN)
	s.mu.Unlock()
	if h.get32(20) == reservedTag {
		return nil // it only updated the window
	}
	s.reader.Go(func() {
		s.sending.Lock()
		defer s.sending.Unlock()
		// Where it fails, the reader finds the connection broken as well.
		_ = send(s.conn, answer, nil)
	})
	return nil
}
