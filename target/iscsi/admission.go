package iscsi

import (
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/scsi"
)

// predecessor is what must end before a login can become full feature phase:
// the session or the connection that it takes the place of.
type predecessor struct {
	end  func()
	gone <-chan struct{}
}

// admit makes a login a session, or a connection of one that exists. What it
// replaces (RFC 7143 6.3.4, 6.3.5: the connection with the same CID, the session
// of the same initiator port) is ended first. Once the login has a place in a
// session, the connection's sess is set.
func (srv *Server) admit(l *login) error {
	timeout := time.NewTimer(srv.opts.LoginTimeout)
	defer timeout.Stop()
	for {
		var old *predecessor
		var err error
		if l.tsih() == 0 {
			old, err = srv.register(l)
		} else {
			old, err = srv.join(l)
		}
		if old == nil || err != nil {
			return err
		}
		old.end()
		select {
		case <-old.gone:
		case <-timeout.C:
			return refuse(loginTargetError, "what the login replaces did not end")
		}
		if l.c.sess != nil {
			return nil
		}
	}
}

// register adds the session of a login.
func (srv *Server) register(l *login) (*predecessor, error) {
	id := l.nexusID()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	same := 0 // sessions of the initiator
	for s := range srv.sessions {
		if s.kind == sessionNormal && l.kind == sessionNormal && s.id == id {
			return &predecessor{s.replace, s.gone}, nil
		}
		if s.id.InitiatorName == l.initiator {
			same++
		}
	}
	if err := srv.room(); err != nil {
		return nil, err
	}
	switch {
	case len(srv.sessions) >= srv.opts.MaxSessions:
		return nil, refuse(loginOutOfResources, "there are %d sessions, as many as the limit", len(srv.sessions))
	case same >= srv.opts.MaxSessionsPerInitiator:
		return nil, refuse(loginOutOfResources, "%s has %d sessions, as many as the limit", l.initiator, same)
	}
	s := srv.newSession(l, id)
	srv.sessions[s] = struct{}{}
	srv.enter(l.c, s)
	return nil, nil
}

// join adds a connection to a session (RFC 7143 6.3.1, TSIH not 0). The
// connection that it replaces has its place until it is gone.
func (srv *Server) join(l *login) (*predecessor, error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s := srv.sessionOf(l)
	if s == nil {
		return nil, refuse(loginNoSuchSession, "%s: no session with TSIH %d", l.initiator, l.tsih())
	}
	if err := srv.room(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.byCID(l.first.cid())
	n := len(s.conns)
	if old != nil {
		n--
	}
	switch {
	case s.closed || !s.open:
		return nil, refuse(loginNoSuchSession, "%s: session %d begins or ends just now", l.initiator, s.tsih)
	case s.kind != sessionNormal || l.kind != sessionNormal || s.id != l.nexusID():
		return nil, refuse(loginCannotInclude, "%s: session %d is another I_T nexus", l.initiator, s.tsih)
	case !sameView(s.view, l.security.view):
		return nil, refuse(loginAuthorizationFailed, "%s: the access list has this address see other LUNs than the session does", l.initiator)
	case n >= int(s.params.maxConnections):
		return nil, refuse(loginTooManyConnections, "%s: session %d has %d connections, as many as agreed on", l.initiator, s.tsih, n)
	}
	s.conns = append(s.conns, l.c)
	srv.enter(l.c, s)
	if old == nil {
		return nil, nil
	}
	return &predecessor{old.close, old.left}, nil
}

// room refuses connections that there is no room for. mu is held.
func (srv *Server) room() error {
	switch {
	case srv.closing:
		return refuse(loginServiceUnavailable, "the server shuts down")
	case srv.loggedIn >= srv.opts.MaxConnections:
		return refuse(loginOutOfResources, "%d connections are logged in", srv.loggedIn)
	}
	return nil
}

// enter makes c a connection of s. mu is held.
func (srv *Server) enter(c *conn, s *session) {
	c.sess = s // from here on the end of the connection takes it out of the session
	srv.strangers.remove(c)
	srv.loggedIn++
}

// sessionOf returns the session that a login names by its TSIH, nil when the
// initiator port has no such session. mu is held.
func (srv *Server) sessionOf(l *login) *session {
	for s := range srv.sessions {
		if s.tsih == l.tsih() && s.id.InitiatorName == l.initiator && s.id.ISID == l.isid() {
			return s
		}
	}
	return nil
}

// newSession returns the session of a login. mu is held.
func (srv *Server) newSession(l *login, id scsi.NexusID) *session {
	s := &session{
		srv: srv, target: l.target, kind: l.kind, id: id, tsih: srv.nextTSIH(), view: l.security.view,
		params: l.params,
		shared: l.params.maxConnections > 1,
		since:  time.Now(),
		gone:   make(chan struct{}),
		conns:  []*conn{l.c},
		tasks:  make(map[uint32]*task),
		early:  make(map[uint32]*earlyPDU),
	}
	s.wake.L = &s.mu
	s.log = srv.opts.Log.WithFields(logrus.Fields{"initiator": id.InitiatorName, "tsih": s.tsih})
	if l.target != nil {
		s.log = s.log.WithField("target", l.target.Name)
	}
	first := l.first.cmdSN()
	s.exp.Store(first)
	s.limit.Store(first + uint32(srv.opts.QueueDepth) - 1)
	return s
}

// nextTSIH returns a free TSIH. mu is held, and there are fewer sessions than
// TSIHs.
func (srv *Server) nextTSIH() uint16 {
	taken := func(v uint16) bool {
		for s := range srv.sessions {
			if s.tsih == v {
				return true
			}
		}
		return false
	}
	for {
		if srv.lastTSIH++; srv.lastTSIH != 0 && !taken(srv.lastTSIH) {
			return srv.lastTSIH
		}
	}
}

// left gives the place of a connection back that left its session.
func (srv *Server) left() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.loggedIn--
}

// remove drops a session that has ended.
func (srv *Server) remove(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
}

// sessionsOf returns the sessions with a target.
func (srv *Server) sessionsOf(t *target) []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []*session
	for s := range srv.sessions {
		if s.target == t {
			list = append(list, s)
		}
	}
	return list
}

// replace ends a session whose initiator logs in again.
func (s *session) replace() {
	s.log.Info("session ends, its initiator logged in again")
	s.disconnect()
}

// byCID returns the connection with the given CID, nil when there is none. mu
// is held.
func (s *session) byCID(cid uint16) *conn {
	if i := slices.IndexFunc(s.conns, func(c *conn) bool { return c.cid == cid }); i >= 0 {
		return s.conns[i]
	}
	return nil
}
