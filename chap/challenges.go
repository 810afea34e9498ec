package chap

import "sync"

// Challenges are the ones that were sent and can still be answered, on all
// connections of a server. A peer that sends one of them back wants our own
// secret to answer it (the reflection attack of RFC 7143 9.2.1, also by way of
// a second connection).
type Challenges struct {
	mu   sync.Mutex // guards live
	live map[string]struct{}
}

// add notes a challenge until remove.
func (c *Challenges) add(challenge []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		c.live = make(map[string]struct{})
	}
	c.live[string(challenge)] = struct{}{}
}

func (c *Challenges) remove(challenge []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, string(challenge))
}

// ours reports whether a challenge is one of ours that can still be answered.
func (c *Challenges) ours(challenge []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.live[string(challenge)]
	return ok
}
