package iscsi

import (
	"errors"
	"time"
)

// Events of an Asynchronous Message (RFC 7143 11.9.1).
const (
	asyncLogoutRequest  = 1
	asyncConnectionDrop = 2
)

// errNotLoggedOut ends a connection whose initiator did not log out when it was asked to.
var errNotLoggedOut = errors.New("connection closed: the initiator has not logged out")

// dropLimit bounds how long a reader may take to end a connection. It is only exceeded by one
// that waits for the initiator to receive.
const dropLimit = time.Second

// leave makes the initiator log out from the connection, as soon as its login is complete. New
// commands on the connection end with BUSY. It reports whether this is the first request.
func (c *conn) leave() (first bool) {
	if c.leaving.Swap(true) {
		return false
	}
	if c.fullFeature.Load() {
		c.requestLogout()
	}
	return true
}

// requestLogout sends the request to log out, once. The login must be complete.
func (c *conn) requestLogout() {
	if c.askedToLogOut.Swap(true) {
		return
	}
	p := c.out.get(opAsync, reservedTag)
	p.bhs[36] = asyncLogoutRequest
	p.put16(42, uint16(min(max(c.srv.options().LogoutTimeout.Seconds(), 1), 1<<16-1))) // Parameter3: seconds
	c.out.queue(p, statSNAdvance)
	c.out.flush()
}

// announceDrop queues the notice that the target closes the connection.
func (c *conn) announceDrop() {
	p := c.out.get(opAsync, reservedTag)
	p.bhs[36] = asyncConnectionDrop
	p.put16(38, c.cid)                      // Parameter1
	p.put16(40, uint16(c.params.time2Wait)) // Parameter2; Parameter3, Time2Retain, is 0
	c.out.queue(p, statSNAdvance)
}

// endLater ends connections whose initiators were asked to log out and have not done so
// within LogoutTimeout. The caller holds changing, and the server is not closing.
func (srv *Server) endLater(conns []*conn) {
	if len(conns) == 0 {
		return
	}
	limit := srv.options().LogoutTimeout
	srv.wg.Go(func() {
		for _, c := range awaitLeft(conns, limit) {
			c.endReader(errNotLoggedOut)
		}
		for _, c := range awaitLeft(conns, dropLimit) {
			c.close()
		}
	})
}

// awaitLeft waits until connections have left their sessions, and returns those that have not
// after limit.
func awaitLeft(conns []*conn, limit time.Duration) (remaining []*conn) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for i, c := range conns {
		select {
		case <-c.left:
			continue
		case <-timer.C:
		}
		for _, c := range conns[i:] {
			select {
			case <-c.left:
			default:
				remaining = append(remaining, c)
			}
		}
		return remaining
	}
	return nil
}
