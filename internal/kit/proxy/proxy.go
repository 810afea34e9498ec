// Package proxy stands between an initiator and a portal and does to the TCP
// connections what networks do: it delivers their bytes in pieces of any size,
// and it takes the path away and gives it back.
package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

// Proxy forwards the connections that it accepts to one portal.
type Proxy struct {
	portal string
	piece  int
	addr   string // where it listens, also while it is cut

	mu     sync.Mutex // guards what follows
	listen net.Listener
	conns  map[net.Conn]bool // both ends of what is forwarded

	running sync.WaitGroup // accept and copy loops
}

// Start forwards connections to a new port of 127.0.0.1 to portal. If piece is
// not 0, each write to either side is of 1 to piece bytes.
func Start(portal string, piece int) (*Proxy, error) {
	p := &Proxy{portal: portal, piece: piece, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	if err := p.Mend(); err != nil {
		return nil, err
	}
	p.addr = p.listen.Addr().String()
	return p, nil
}

// Addr is host:port, the same over cuts.
func (p *Proxy) Addr() string { return p.addr }

// Port is the port of Addr.
func (p *Proxy) Port() int {
	a, _ := net.ResolveTCPAddr("tcp", p.addr) // an address that was listened on
	return a.Port
}

// Cut takes the path away: all connections end, by a reset, and new ones are
// refused.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen == nil {
		return
	}
	p.listen.Close()
	p.listen = nil
	for c := range p.conns {
		reset(c)
	}
}

// Mend gives a path back that was cut.
func (p *Proxy) Mend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != nil {
		return fmt.Errorf("proxy %s is not cut", p.addr)
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("proxy to %s: %w", p.portal, err)
	}
	p.listen = l
	p.running.Go(func() { p.accept(l) })
	return nil
}

// Close ends everything.
func (p *Proxy) Close() {
	p.Cut()
	p.running.Wait()
}

// Connections is how many initiators' connections are forwarded now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *Proxy) accept(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return // it was cut
		}
		far, err := net.Dial("tcp", p.portal)
		if err != nil {
			near.Close()
			continue
		}
		if !p.add(l, near, far) {
			continue
		}
		p.running.Go(func() { p.forward(near, far) })
	}
}

// add records a pair of connections, unless the path has been cut.
func (p *Proxy) add(l net.Listener, near, far net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != l {
		near.Close()
		far.Close()
		return false
	}
	p.conns[near], p.conns[far] = true, true
	return true
}

// forward copies both ways until one side ends or the path is cut.
func (p *Proxy) forward(near, far net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { p.copy(far, near) })
	both.Go(func() { p.copy(near, far) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, near)
	delete(p.conns, far)
	near.Close()
	far.Close()
}

// copy copies until from ends, and ends to in the same way.
func (p *Proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if werr := p.write(to, buffer[:n]); werr != nil {
			reset(from)
			return
		}
		if errors.Is(err, io.EOF) {
			to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			reset(to)
			return
		}
	}
}

// write writes b, in pieces where the proxy is to.
func (p *Proxy) write(to net.Conn, b []byte) error {
	for len(b) > 0 {
		n := len(b)
		if p.piece > 0 {
			n = min(n, 1+rand.IntN(p.piece))
		}
		if _, err := to.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// reset ends a connection so that its peer sees an error.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}
