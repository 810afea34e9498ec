package iscsi

import "time"

// stall finds connections that hold memory for an initiator that does not move:
// it takes nothing of what it asked for, or sends nothing of what it was asked
// for. While memory is short they are closed, so that others get it.
type stall struct {
	moved, dataOuts uint32
	// For how long the peer took nothing of what was there, and, while memory is
	// short, sent nothing of what it was asked for.
	taking, sending time.Duration
}

// tick is called every lookTick; short says that memory is short.
func (g *stall) tick(c *conn, short bool) {
	if !c.fullFeature.Load() {
		return
	}
	moved, dataOuts := c.out.moved.Load(), c.dataOuts.Load()
	g.taking += c.srv.lookTick()
	g.sending += c.srv.lookTick()
	if moved != g.moved || c.out.bytes.Load() == 0 {
		g.moved, g.taking = moved, 0
	}
	if dataOuts != g.dataOuts || !short || !c.awaitsData() {
		g.dataOuts, g.sending = dataOuts, 0
	}
	if !short {
		return
	}
	limit := c.srv.opts.StallTimeout
	switch {
	case g.taking >= limit:
		c.sess.log.WithField("stalled", g.taking).Warn("memory is short and the initiator takes nothing of what it asked for, closing the connection")
	case g.sending >= limit:
		c.sess.log.WithField("stalled", g.sending).Warn("memory is short and the initiator sends nothing of what it was asked for, closing the connection")
	default:
		return
	}
	c.close()
}

// awaitsData reports whether the initiator is to send Data-Out.
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
