package iscsi

import "time"

// stall detects connections that hold memory for a stalled initiator: one that receives no
// pending Data-In, or sends no solicited Data-Out. They are closed while memory is short.
type stall struct {
	moved, dataOuts uint32
	// Duration without progress in receiving, and, while memory is short, in sending.
	receiving, sending time.Duration
}

// tick is called at intervals of every. short reports that memory is short.
func (g *stall) tick(c *conn, every time.Duration, short bool) {
	if !c.fullFeature.Load() {
		return
	}
	moved, dataOuts := c.out.moved.Load(), c.dataOuts.Load()
	g.receiving += every
	g.sending += every
	if moved != g.moved || c.out.bytes.Load() == 0 {
		g.moved, g.receiving = moved, 0
	}
	if dataOuts != g.dataOuts || !short || !c.awaitsData() {
		g.dataOuts, g.sending = dataOuts, 0
	}
	if !short {
		return
	}
	limit := c.srv.options().StallTimeout
	switch {
	case g.receiving >= limit:
		c.sess.log.WithField("stalled", g.receiving).Warn("connection closed: initiator receives no Data-In while memory is short")
	case g.sending >= limit:
		c.sess.log.WithField("stalled", g.sending).Warn("connection closed: initiator sends no Data-Out while memory is short")
	default:
		return
	}
	c.close()
}

// awaitsData reports whether Data-Out is solicited from the initiator.
func (c *conn) awaitsData() bool {
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.conn == c && t.state == taskCollecting && t.out.n > 0 {
			return true
		}
	}
	return false
}
