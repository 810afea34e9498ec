package api

import (
	"crypto/tls"
	"net"
	"sync"
)

// gatherBytes is how much of a long answer is written to a connection at once. TLS makes records
// of at most 16 KiB and writes each by itself, which costs a system call and a segment for
// each.
const gatherBytes = 128 << 10

// gatherBuffers are those of answers that are being written.
var gatherBuffers = sync.Pool{New: func() any { return new([gatherBytes]byte) }}

// encrypt returns a connection with TLS over c.
func encrypt(c net.Conn, config *tls.Config) net.Conn {
	g := &gathered{Conn: c}
	return encrypted{tls.Server(g, config), g}
}

// encrypted is a connection with TLS. http.Server takes it for one without, so that the
// handshake is made when the first request is read, within the time for headers, and its
// errors are not logged.
type encrypted struct {
	net.Conn // a *tls.Conn
	below    *gathered
}

// Write implements net.Conn.
func (e encrypted) Write(p []byte) (n int, err error) {
	if len(p) < gatherBytes/2 {
		return e.Conn.Write(p)
	}
	e.below.begin()
	n, err = e.Conn.Write(p)
	if flushed := e.below.end(); err == nil && flushed != nil {
		return 0, flushed // which of it has been sent is not known
	}
	return n, err
}

// gathered is a connection that writes what it has gathered between begin and end in large
// pieces.
type gathered struct {
	net.Conn

	mu  sync.Mutex // guards what follows; held while buf is written
	buf *[gatherBytes]byte
	n   int // of buf
}

// begin has what is written gathered. end follows, without another begin before it.
func (g *gathered) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.buf, g.n = gatherBuffers.Get().(*[gatherBytes]byte), 0
}

// end writes what was gathered.
func (g *gathered) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.flush()
	gatherBuffers.Put(g.buf)
	g.buf = nil
	return err
}

// flush writes the buffer. mu is held.
func (g *gathered) flush() error {
	if g.n == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.buf[:g.n])
	g.n = 0
	return err
}

// Write implements net.Conn.
func (g *gathered) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.buf == nil {
		return g.Conn.Write(p)
	}
	done := 0
	for {
		n := copy(g.buf[g.n:], p[done:])
		g.n, done = g.n+n, done+n
		if done == len(p) {
			return done, nil
		}
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
}
