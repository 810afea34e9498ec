// Package quota bounds memory that clients share, fairly: no client can keep all of it
// from the others, and a client that waits is served.
//
// It is for callers that may block: copies, requests of the API. The budget of package
// target/iscsi has the same rule for shares, but no operation that blocks, because a
// connection must remain readable; it is divided into parts, and takes no lock while
// memory is free.
package quota

import (
	"context"
	"slices"
	"sync"
)

// Quota is a number of bytes that clients share. A client that holds nothing may take
// what is free; one that holds memory may hold as much as then remains free. A claim that
// exceeds the limit is granted while no memory is held. A Quota is safe for concurrent
// use.
//
// A caller that holds memory of a Quota must not wait for more of it: two such callers
// could wait for each other.
type Quota struct {
	limit int64

	mu     sync.Mutex // guards the fields below
	held   int64
	shares map[string]int64 // by client; those that hold something
	queue  []*claim         // in order of arrival
}

// claim is a client that waits.
type claim struct {
	client  string
	n       int64
	granted chan struct{} // closed with the quota's mu held
}

// New returns a Quota of limit bytes.
func New(limit int64) *Quota { return &Quota{limit: limit, shares: make(map[string]int64)} }

// Limit returns the number of bytes that clients share.
func (q *Quota) Limit() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limit
}

// SetLimit changes it. What clients hold beyond it comes back as they release it.
func (q *Quota) SetLimit(limit int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = limit
	q.grant()
}

// Held returns the number of bytes that clients hold.
func (q *Quota) Held() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// Take takes n bytes for a client, and waits for them until ctx ends. The caller returns
// them with Release.
func (q *Quota) Take(ctx context.Context, client string, n int64) error {
	q.mu.Lock()
	if len(q.queue) == 0 && q.fits(client, n) {
		q.take(client, n)
		q.mu.Unlock()
		return nil
	}
	c := &claim{client: client, n: n, granted: make(chan struct{})}
	q.queue = append(q.queue, c)
	q.grant() // it may be the only client that is not at its bound
	q.mu.Unlock()
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.queue, c); i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
	} else {
		q.put(client, n)
	}
	q.grant()
	return ctx.Err()
}

// Release returns n bytes of a client.
func (q *Quota) Release(client string, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(client, n)
	q.grant()
}

// fits reports whether a client may take n bytes. The caller holds mu.
func (q *Quota) fits(client string, n int64) bool {
	own, left := q.shares[client], q.limit-q.held-n
	return q.held == 0 || left >= 0 && (own == 0 || own+n <= left)
}

func (q *Quota) take(client string, n int64) {
	q.held += n
	q.shares[client] += n
}

func (q *Quota) put(client string, n int64) {
	q.held -= n
	if q.shares[client] -= n; q.shares[client] == 0 {
		delete(q.shares, client)
	}
}

// grant serves claims: first that of the client that holds least, and of its claims the
// oldest. A claim that has to wait for more to become free is not overtaken; one of a
// client that holds too much is. The caller holds mu.
func (q *Quota) grant() {
	for {
		i := q.first()
		if i < 0 {
			return
		}
		c := q.queue[i]
		q.queue = slices.Delete(q.queue, i, i+1)
		q.take(c.client, c.n)
		close(c.granted)
	}
}

// first returns the index of the claim to serve next, or -1. The caller holds mu.
func (q *Quota) first() int {
	tried := make(map[string]bool) // clients that hold too much
	for {
		first := -1
		for i, c := range q.queue {
			if !tried[c.client] && (first < 0 || q.shares[c.client] < q.shares[q.queue[first].client]) {
				first = i
			}
		}
		if first < 0 {
			return -1
		}
		c := q.queue[first]
		switch {
		case q.fits(c.client, c.n):
			return first
		case q.limit-q.held-c.n < 0:
			return -1
		}
		tried[c.client] = true
	}
}
