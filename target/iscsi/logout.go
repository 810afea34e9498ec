package iscsi

import (
	"errors"
	"slices"
)

// errLoggedOut ends the reader after a Logout.
var errLoggedOut = errors.New("logged out")

// Reasons of a Logout Request, and responses (RFC 7143 11.14.1, 11.15.1).
const (
	logoutCloseSession      = 0
	logoutCloseConnection   = 1
	logoutRemoveForRecovery = 2

	logoutClosed      = 0
	logoutCIDNotFound = 1
	logoutNoRecovery  = 2
)

// handleLogout ends the session or one of its connections (RFC 7143 11.14).
func (c *conn) handleLogout(p *pdu) error {
	if err := p.discard(); err != nil {
		return err
	}
	reason := p.bhs[1] & 0x7f
	if reason > logoutRemoveForRecovery {
		return malformed("logout with reason %d", reason)
	}
	s := c.sess
	s.releasePlace(p)
	r := c.out.get(opLogoutResponse, p.itt())
	r.put16(40, uint16(c.params.time2Wait))
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	if reason == logoutCloseSession {
		s.drain()
	}
	s.mu.Unlock()
	if reason != logoutCloseSession {
		conns = slices.DeleteFunc(conns, func(o *conn) bool { return o.cid != p.cid() })
	}
	switch {
	case reason == logoutRemoveForRecovery: // no recovery at level 0
		r.bhs[2] = logoutNoRecovery
	case len(conns) == 0:
		r.bhs[2] = logoutCIDNotFound
	default:
		return c.closeAfterLogout(conns, r)
	}
	c.out.queue(r, statSNAdvance)
	return nil
}

// closeAfterLogout closes the given connections and then responds. If c is one of them, r
// is its last PDU.
func (c *conn) closeAfterLogout(conns []*conn, r *outPDU) error {
	r.bhs[2] = logoutClosed
	own := slices.Index(conns, c)
	if own >= 0 {
		c.logoutResponse = r
		c.suspended.never = true
		conns = slices.Delete(conns, own, own+1)
	}
	if len(conns) == 0 {
		return errLoggedOut
	}
	c.srv.wg.Add(1)
	if own < 0 {
		c.sess.hold() // c waits with its response
	}
	go func() {
		defer c.srv.wg.Done()
		for _, o := range conns {
			o.close()
		}
		for _, o := range conns {
			<-o.left
		}
		if own >= 0 {
			c.endReader(errLoggedOut)
			return
		}
		c.out.queue(r, statSNAdvance)
		c.out.flush()
		c.sess.release()
	}()
	return nil
}
