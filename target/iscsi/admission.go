package iscsi

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
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
			if !l.maySucceed(s) {
				return nil, l.refuseSuccession(s, s.addresses())
			}
			return &predecessor{func() { s.replace(l) }, s.gone}, nil
		}
		if s.id.InitiatorName == l.initiator {
			same++
		}
	}
	if len(srv.sessions) >= srv.opts.MaxSessions || srv.loggedIn >= srv.opts.MaxConnections {
		if idle := srv.surplusDiscovery(l); idle != nil && !srv.closing {
			return &predecessor{func() { idle.makeRoom(l) }, idle.gone}, nil
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

// surplusDiscovery returns the discovery session that a login takes the place of
// when there are too many sessions: the oldest one of the address that has most of
// them, if that is more than the login's own has, and had time to ask. It takes no
// more than a name to have one, and no one needs one for long. mu is held.
func (srv *Server) surplusDiscovery(l *login) *session {
	counts := make(map[netip.Prefix]int)
	for s := range srv.sessions {
		if s.kind == sessionDiscovery {
			counts[s.origin]++
		}
	}
	var oldest *session
	for s := range srv.sessions {
		switch {
		case s.kind != sessionDiscovery, counts[s.origin] <= counts[originOf(l.c.nc.RemoteAddr())]+1, time.Since(s.since) < srv.opts.LoginPatience:
		case oldest == nil, counts[s.origin] > counts[oldest.origin],
			counts[s.origin] == counts[oldest.origin] && s.since.Before(oldest.since):
			oldest = s
		}
	}
	return oldest
}

// makeRoom ends a session for a login.
func (s *session) makeRoom(l *login) {
	s.log.WithFields(l.succession(s.addresses())).Warn("discovery session ends: there are too many sessions, and its address has most of these")
	s.disconnect()
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
	case !l.maySucceed(s):
		return nil, l.refuseSuccession(s, s.remoteAddresses())
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
	return &predecessor{func() { s.replaceConnection(old, l) }, old.left}, nil
}

// maySucceed reports whether a login may take the place of session s, of one of
// its connections, or one next to them. The name of an initiator and its ISID
// are no proof: the login has to be by the user that the session is by, or by
// one that is bound to the name. Where anyone may use the name without a proof,
// or the session's user may not use it any more, every login that got this far
// may. Addresses are not compared, because DHCP and NAT change them.
func (l *login) maySucceed(s *session) bool {
	a, user := &l.security.Authentication, l.security.user()
	switch {
	case a.CHAP == nil || s.user == "" || user == s.user:
		return true
	case user != "" && a.CHAP.Bound(user, l.initiator):
		return true
	}
	return !a.CHAP.Allows(s.user, l.initiator)
}

// refuseSuccession refuses a login that maySucceed is false for.
func (l *login) refuseSuccession(s *session, from []string) error {
	user := "without a user"
	if name := l.security.user(); name != "" {
		user = "by user " + name
	}
	return refuse(loginAuthorizationFailed, "%s logs in %s, but its session %d from %s is by user %s; bind users to their initiators",
		l.initiator, user, s.tsih, strings.Join(from, ", "), s.user)
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
	srv.pending.remove(c)
	srv.startLogins()
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
		srv: srv, target: l.target, kind: l.kind, id: id, tsih: srv.newTSIH(), view: l.security.view,
		user:   l.security.user(),
		origin: originOf(l.c.nc.RemoteAddr()),
		params: l.params,
		shared: l.params.maxConnections > 1,
		since:  time.Now(),
		gone:   make(chan struct{}),
		conns:  []*conn{l.c},
		tasks:  make(map[uint32]*task),
		early:  make(map[uint32]*earlyPDU),
	}
	s.share = srv.budget.join(id.InitiatorName)
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

// newTSIH returns a free TSIH that no initiator can foretell: it names the
// session to logins that join it. mu is held, and there are fewer sessions than
// TSIHs.
func (srv *Server) newTSIH() uint16 {
	taken := func(v uint16) bool {
		for s := range srv.sessions {
			if s.tsih == v {
				return true
			}
		}
		return false
	}
	for {
		var random [2]byte
		rand.Read(random[:]) // never fails (crypto/rand)
		if v := binary.BigEndian.Uint16(random[:]); v != 0 && !taken(v) {
			return v
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
	srv.budget.leave(s.id.InitiatorName)
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
func (s *session) replace(l *login) {
	s.log.WithFields(l.succession(s.addresses())).Info("session ends, its initiator logged in again")
	s.disconnect()
}

// replaceConnection ends a connection whose initiator logs in again with its
// CID.
func (s *session) replaceConnection(old *conn, l *login) {
	s.log.WithFields(l.succession([]string{old.nc.RemoteAddr().String()})).WithField("cid", old.cid).
		Info("connection ends, its initiator logged in again with its CID")
	old.close()
}

// succession is where a login comes from and what it displaces, for the log.
func (l *login) succession(displaced []string) logrus.Fields {
	return logrus.Fields{"displaced": strings.Join(displaced, ", "), "by": l.c.nc.RemoteAddr().String()}
}

// addresses are the remote addresses of a session's connections.
func (s *session) addresses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remoteAddresses()
}

// remoteAddresses is addresses with mu held.
func (s *session) remoteAddresses() []string {
	var list []string
	for _, c := range s.conns {
		list = append(list, c.nc.RemoteAddr().String())
	}
	return list
}

// byCID returns the connection with the given CID, nil when there is none. mu
// is held.
func (s *session) byCID(cid uint16) *conn {
	if i := slices.IndexFunc(s.conns, func(c *conn) bool { return c.cid == cid }); i >= 0 {
		return s.conns[i]
	}
	return nil
}
