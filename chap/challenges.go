package chap

import "sync"

// Challenges tracks the outstanding challenges on all connections of a server. A
// peer that returns one of them, possibly on another connection, attempts a
// reflection attack (RFC 7143 9.2.1).
type Challenges struct {
	mu   sync.Mutex // guards live
	live map[string]struct{}
}

// add records a challenge until remove.
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

// contains reports whether a challenge is outstanding.
func (c *Challenges) contains(challenge []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.live[string(challenge)]
	return ok
}
