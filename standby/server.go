package standby

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"odx/internal/localsocket"
)

const (
	// maxAttached bounds the standbys of a server.
	maxAttached = 8
	// sendLimit bounds how long a standby may take to receive a socket.
	sendLimit = 5 * time.Second
)

// Server passes the listening sockets of this process to standbys. Its methods may be
// called concurrently, also of a nil Server, which has no standbys.
type Server struct {
	l       net.Listener
	serving sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	offers   []offer
	attached map[*net.UnixConn]struct{}
}

// offer is a socket that standbys get.
type offer struct {
	name   name
	about  []byte // a packet
	socket syscall.RawConn
}

// Serve accepts standbys of the store in dir until Close. The caller owns the store.
func Serve(dir string) (*Server, error) {
	l, err := localsocket.Listen("unixpacket", dir, socketName)
	if err != nil {
		return nil, fmt.Errorf("socket for standbys: %w", err)
	}
	s := &Server{l: l, attached: map[*net.UnixConn]struct{}{}}
	s.serving.Go(func() { s.accept(l) })
	return s, nil
}

// accept attaches standbys until the listener is closed.
func (s *Server) accept(l *localsocket.Listener) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(sendLimit / 100) // no descriptor is free; the next standby may find one
			continue
		}
		if !s.attach(conn) {
			conn.Close()
			continue
		}
		s.serving.Go(func() { s.watch(conn) })
	}
}

// attach sends all sockets to a standby, and reports whether it may stay.
func (s *Server) attach(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.attached) >= maxAttached {
		return false
	}
	for _, o := range s.offers {
		if o.send(conn) != nil {
			return false
		}
	}
	s.attached[conn] = struct{}{}
	return true
}

// watch waits for the end of a standby, which sends nothing.
func (s *Server) watch(conn *net.UnixConn) {
	var b [1]byte
	_, _ = conn.Read(b[:]) // whatever comes: it does not keep to the protocol
	s.mu.Lock()
	delete(s.attached, conn)
	s.mu.Unlock()
	conn.Close()
}

// Offer passes a listening socket to every standby, with what this process was told to
// listen on.
func (s *Server) Offer(network, address string, l net.Listener) error {
	if s == nil {
		return nil
	}
	c, ok := l.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor for standbys", l)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	about, err := json.Marshal(packet{Version: version, Network: network, Address: address})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := offer{name{network, address}, about, raw}
	s.offers = append(s.offers, o)
	for conn := range s.attached {
		if o.send(conn) != nil {
			conn.Close() // watch ends; it may attach again
		}
	}
	return nil
}

// Withdraw has standbys close a socket that was offered: this process closes it, too, and
// serves no longer there.
func (s *Server) Withdraw(network, address string) {
	if s == nil {
		return
	}
	about, _ := json.Marshal(packet{Version: version, Network: network, Address: address, Withdrawn: true}) // plain data cannot fail
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offers = slices.DeleteFunc(s.offers, func(o offer) bool { return o.name == name{network, address} })
	for conn := range s.attached {
		err := conn.SetWriteDeadline(time.Now().Add(sendLimit))
		if err == nil {
			err = localsocket.Send(conn, about, -1)
		}
		if err != nil {
			conn.Close() // watch ends
		}
	}
}

// send sends the socket to a standby.
func (o *offer) send(conn *net.UnixConn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	var err error
	closed := o.socket.Control(func(fd uintptr) {
		err = localsocket.Send(conn, o.about, int(fd))
	})
	return errors.Join(closed, err)
}

// Attached returns how many standbys wait.
func (s *Server) Attached() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.attached)
}

// Close ends the connections to standbys, which keep the sockets.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	s.closed = true
	for conn := range s.attached {
		conn.Close()
	}
	s.mu.Unlock()
	err := s.l.Close()
	s.serving.Wait()
	return err
}
