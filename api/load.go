package api

import (
	"context"
	"net"
	"net/http"

	"odx/quota"
)

const (
	// maxParameters bounds the body of a request without data, in bytes.
	maxParameters = 64 << 10
	// maxConfig bounds the text of a configuration, in bytes; package conf takes no more.
	maxConfig = 1 << 20
	// maxData bounds the bytes of a volume or a token in one request.
	maxData = 4 << 20
	// maxConnections bounds the clients of a listener that are connected.
	maxConnections = 256
	// defaultMemory bounds the memory of requests of a server that shares none, in bytes.
	defaultMemory = 32 << 20
)

// load is what a request demands of the server: time, and memory in bytes.
type load struct {
	// long: it can take minutes, and is cancelled when the server stops.
	long bool
	// body bounds the body, answer the answer, which a length in the query makes shorter.
	body, answer int64
	// stream: the body or the answer is a stream, which is not in memory as a whole.
	stream bool
	// list: the answer grows with what the store has. See reserve.
	list bool
}

// The loads of requests; short and long ones have few parameters and a short answer.
var (
	short     = load{body: maxParameters}
	long      = load{body: maxParameters, long: true}
	lists     = load{body: maxParameters, list: true}
	takesData = load{body: maxData}
	givesData = load{body: maxParameters, answer: maxData}

	takesConfig = load{body: maxConfig}
	givesConfig = load{answer: 2 * maxConfig} // with defaults
)

// ShareMemory has the requests of the server take their memory of q: what waits for it is
// not read. It belongs to the set-up.
func (s *Server) ShareMemory(q *quota.Quota) { s.memory = q }

// reservation is memory that a request holds.
type reservation struct {
	memory *quota.Quota
	client string
	n      int64
}

// reserve takes the memory of a request, and waits for it until the client disconnects or
// the server stops. The length of a list is known when it is there: a list takes half of
// all memory, so that at most two are made at a time, and keeps what it needs.
func (s *Server) reserve(r *route, c *call) error {
	n := r.load.body
	if length := c.request.ContentLength; length >= 0 {
		n = min(n, length)
	}
	answer := r.load.answer
	if length, err := c.number("length"); err == nil {
		answer = min(answer, length)
	}
	if n += answer; r.load.list {
		n = s.memory.Limit() / 2
	}
	if n == 0 {
		return nil // odx status is answered even if all memory is taken
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	client := clientOf(c.request)
	if err := s.memory.Take(ctx, client, n); err != nil {
		return err
	}
	c.held = reservation{s.memory, client, n}
	return nil
}

// shrink returns all but n bytes of the reservation; n may be more than that.
func (h *reservation) shrink(n int64) {
	if n < h.n {
		h.memory.Release(h.client, h.n-n)
		h.n = n
	}
}

// release returns the reservation. It may be called again.
func (h *reservation) release() { h.shrink(0) }

// clientOf returns what requests of one client have in common: its address, or that it is
// on this machine.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
