// Package httpstop ends HTTP servers soon. http.Server.Shutdown waits up to five seconds for
// a connection on which no request has come yet, since one may be on its way. Browsers and
// HTTP clients open such connections ahead, and never use some of them, so that a server
// could not end in less. Here they are closed half a second after the listener.
package httpstop

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// grace is how long a request may take to come on a connection that is new when the server
// ends.
const grace = 500 * time.Millisecond

// Connections are those of a server on which no request has come yet. The zero value is
// valid. It is safe for concurrent use.
type Connections struct {
	mu     sync.Mutex // guards unused
	unused map[net.Conn]struct{}
}

// Track is to be the ConnState of the server.
func (c *Connections) Track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != http.StateNew {
		delete(c.unused, conn)
		return
	}
	if c.unused == nil {
		c.unused = map[net.Conn]struct{}{}
	}
	c.unused[conn] = struct{}{}
}

// Shutdown lets requests finish until ctx ends, as that of the server does, and returns what
// it returns. No listener is open any more then.
func (c *Connections) Shutdown(ctx context.Context, s *http.Server) error {
	over := make(chan struct{})
	var closing sync.WaitGroup
	defer closing.Wait()
	defer close(over)
	closing.Go(func() {
		tick := time.NewTicker(grace)
		defer tick.Stop()
		for { // the listener may have accepted one more
			select {
			case <-over:
				return
			case <-tick.C:
				c.closeUnused()
			}
		}
	})
	return s.Shutdown(ctx)
}

func (c *Connections) closeUnused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.unused {
		delete(c.unused, conn)
		// That of TLS may wait for its peer, up to five seconds; its own end is enough.
		if outer, ok := conn.(interface{ NetConn() net.Conn }); ok {
			conn = outer.NetConn()
		}
		_ = conn.Close() // it has carried nothing
	}
}
