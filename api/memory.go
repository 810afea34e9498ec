package api

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"odx/blockdev"
	"odx/quota"
)

const (
	// maxParameters bounds the body of a request without data, in bytes.
	maxParameters = 64 << 10
	// maxConnections bounds the clients of a listener that are connected.
	maxConnections = 256
	// defaultMemory bounds the memory of requests of a server that shares none, in bytes.
	defaultMemory = 32 << 20
	// dataTimeout bounds how long a client may take to send its body or to take its
	// answer, while both are in memory.
	dataTimeout = 30 * time.Second
)

// demand is the memory that a request takes, in bytes.
type demand struct {
	body   int64 // at most; 0: maxParameters
	answer int64
	// list: the answer grows with what the store has. Two of them are made at a time.
	list bool
}

// demands are those of requests that take more than a few parameters and a short answer.
var demands = map[string]demand{
	"PUT /v1/volumes/{name}/data": {body: maxData},
	"GET /v1/volumes/{name}/data": {answer: maxData},
	"POST /v1/tokens/read":        {answer: maxData},
	"GET /v1/tokens":              {list: true},
	"GET /v1/volumes":             {list: true},
	"GET /v1/files":               {list: true},
}

// ShareMemory has the requests of the server take their memory of q: what waits for it is
// not read. It belongs to the set-up.
func (s *Server) ShareMemory(q *quota.Quota) { s.memory = q }

// reserve takes the memory of a request, and waits for it. The caller gives it back, once
// or more often.
func (s *Server) reserve(r *route, c *call) (release func(), err error) {
	need := demands[r.method+" "+r.path]
	if need.body == 0 {
		need.body = maxParameters
	}
	c.maxBody = need.body
	n := need.body
	if length := c.request.ContentLength; length >= 0 {
		n = min(n, length)
	}
	if n += need.answer; need.list {
		n = s.memory.Limit() / 2
	}
	if n == 0 {
		return func() {}, nil // whatever the others take, odx status is answered
	}
	client := clientOf(c.request)
	if err := s.memory.Take(c.ctx, client, n); err != nil {
		return nil, err
	}
	if c.request.ContentLength != 0 { // its end removes the deadline
		c.deadline((*http.ResponseController).SetReadDeadline)
	}
	return sync.OnceFunc(func() { s.memory.Release(client, n) }), nil
}

// deadline sets a deadline of the connection. Only one of a test knows none.
func (c *call) deadline(set func(*http.ResponseController, time.Time) error) {
	_ = set(http.NewResponseController(c.writer), time.Now().Add(dataTimeout))
}

// clientOf returns what requests of one client have in common: its address, or that it is
// on this machine.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// readBody reads the body, of which there is memory for maxBody bytes.
func (c *call) readBody() (err error) {
	body := http.MaxBytesReader(c.writer, c.request.Body, c.maxBody)
	if n := c.request.ContentLength; n >= 0 && n <= c.maxBody {
		c.parameters = make([]byte, n)
		_, err = io.ReadFull(body, c.parameters)
	} else {
		c.parameters, err = io.ReadAll(body)
	}
	if err != nil {
		return fmt.Errorf("%w: parameters: %w", blockdev.ErrInvalid, err)
	}
	return nil
}

// boundedListener accepts maxConnections connections, and the next one when one of them
// has ended.
type boundedListener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newBoundedListener(l net.Listener, n int) *boundedListener {
	return &boundedListener{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-b.places })}, nil
}

// Close implements net.Listener.
func (b *boundedListener) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
