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

// predecessor is the session or connection that a login replaces. It must end before
// the login enters full feature phase.
type predecessor struct {
	end  func()
	gone <-chan struct{}
}

// admit adds a login as a session, or as a connection of an existing session. It first
// ends the connection with the same CID, or the session of the same initiator port,
// which the login replaces (RFC 7143 6.3.4, 6.3.5). It sets the connection's sess as
// soon as the login belongs to a session.
func (srv *Server) admit(l *login) error {
	timeout := time.NewTimer(l.conf.options.LoginTimeout)
	defer timeout.Stop()
	for {
		if err := l.catchUp(); err != nil {
			return err
		}
		var old *predecessor
		var err error
		if l.tsih() == 0 {
			old, err = srv.register(l)
		} else {
			srv.readmitFor(l)
			old, err = srv.join(l)
		}
		if err == errReconfigured {
			continue
		}
		if old == nil || err != nil {
			return err
		}
		old.end()
		select {
		case <-old.gone:
		case <-timeout.C:
			return refuse(loginTargetError, "timeout waiting for the replaced session or connection to end")
		}
		if l.c.sess != nil {
			return nil
		}
	}
}

// register adds the session of a login. It returns the predecessor, if any.
func (srv *Server) register(l *login) (*predecessor, error) {
	id := l.nexusID()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	o := &l.conf.options
	if srv.conf.Load() != l.conf {
		return nil, errReconfigured
	}
	same := 0 // sessions of the initiator
	for s := range srv.sessions {
		if s.kind == sessionNormal && l.kind == sessionNormal && s.id == id {
			if !l.mayReplace(s) {
				return nil, l.refuseReplacement(s, s.addresses())
			}
			return &predecessor{func() { s.replace(l) }, s.gone}, nil
		}
		if s.id.InitiatorName == l.initiator {
			same++
		}
	}
	if len(srv.sessions) >= o.MaxSessions || srv.loggedIn >= o.MaxConnections {
		if idle := srv.discoveryCandidate(l); idle != nil && !srv.closing {
			return &predecessor{func() { idle.evict(l) }, idle.gone}, nil
		}
	}
	if err := srv.checkCapacity(); err != nil {
		return nil, err
	}
	switch {
	case len(srv.sessions) >= o.MaxSessions:
		return nil, refuse(loginOutOfResources, "session limit of %d reached", len(srv.sessions))
	case same >= o.MaxSessionsPerInitiator:
		return nil, refuse(loginOutOfResources, "%s: limit of %d sessions per initiator reached", l.initiator, same)
	}
	s := srv.newSession(l, id, srv.newTSIH())
	srv.sessions[s] = struct{}{}
	srv.enter(l.c, s)
	return nil, nil
}

// discoveryCandidate returns the discovery session to evict for a login when a limit is
// reached: the oldest one of the address that has the most, if that is more than the
// login's address has, and if it is older than LoginPatience. Discovery sessions need
// no secret and are short-lived. The caller holds mu.
func (srv *Server) discoveryCandidate(l *login) *session {
	counts := make(map[netip.Prefix]int)
	for s := range srv.sessions {
		if s.kind == sessionDiscovery {
			counts[s.origin]++
		}
	}
	var oldest *session
	for s := range srv.sessions {
		switch {
		case s.kind != sessionDiscovery, counts[s.origin] <= counts[originOf(l.c.nc.RemoteAddr())]+1, time.Since(s.since) < srv.options().LoginPatience:
		case oldest == nil, counts[s.origin] > counts[oldest.origin],
			counts[s.origin] == counts[oldest.origin] && s.since.Before(oldest.since):
			oldest = s
		}
	}
	return oldest
}

// evict ends a discovery session in favor of a login.
func (s *session) evict(l *login) {
	s.log.WithFields(l.replacement(s.addresses())).Warn("discovery session evicted: session limit reached")
	s.disconnect()
}

// join adds a connection to a session (RFC 7143 6.3.1, TSIH not 0). A connection that
// it replaces stays in the session until it has ended.
func (srv *Server) join(l *login) (*predecessor, error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.conf.Load() != l.conf {
		return nil, errReconfigured
	}
	s := srv.sessionOf(l)
	if s == nil {
		return nil, refuse(loginNoSuchSession, "%s: no session with TSIH %d", l.initiator, l.tsih())
	}
	if err := srv.checkCapacity(); err != nil {
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
	case s.conf != l.conf:
		return nil, errReconfigured
	case s.closed || !s.opened || s.leaving():
		return nil, refuse(loginNoSuchSession, "%s: session %d is starting or ending", l.initiator, s.tsih)
	case s.kind != sessionNormal || l.kind != sessionNormal || s.id != l.nexusID():
		return nil, refuse(loginCannotInclude, "%s: session %d belongs to another I_T nexus", l.initiator, s.tsih)
	case !l.mayReplace(s):
		return nil, l.refuseReplacement(s, s.remoteAddresses())
	case !sameView(s.view, l.security.view):
		return nil, refuse(loginAuthorizationFailed, "%s: access list maps other LUNs for this address than for the session", l.initiator)
	case n >= int(s.params.maxConnections):
		return nil, refuse(loginTooManyConnections, "%s: session %d has reached its limit of %d connections", l.initiator, s.tsih, n)
	}
	s.conns = append(s.conns, l.c)
	srv.enter(l.c, s)
	if old == nil {
		return nil, nil
	}
	return &predecessor{func() { s.replaceConnection(old, l) }, old.left}, nil
}

// mayReplace reports whether a login may replace session s or one of its connections,
// or add a connection to it. The initiator name and ISID alone are not sufficient: the
// login must have the user of the session, or a user that is bound to the name. Every
// login may if authentication is not required, or if the session's user may no longer
// use the name. Addresses are not compared, because DHCP and NAT change them.
func (l *login) mayReplace(s *session) bool {
	a, user := &l.security.Authentication, l.security.user()
	switch {
	case a.CHAP == nil || s.user == "" || user == s.user:
		return true
	case user != "" && a.CHAP.Bound(user, l.initiator):
		return true
	}
	return !a.CHAP.Allows(s.user, l.initiator)
}

// refuseReplacement returns the error of a login for which mayReplace is false.
func (l *login) refuseReplacement(s *session, from []string) error {
	user := "without a user"
	if name := l.security.user(); name != "" {
		user = "by user " + name
	}
	return refuse(loginAuthorizationFailed, "%s logs in %s, but session %d from %s belongs to user %s; bind users to their initiators",
		l.initiator, user, s.tsih, strings.Join(from, ", "), s.user)
}

// checkCapacity returns an error if no further connection is possible. The caller holds
// mu.
func (srv *Server) checkCapacity() error {
	switch {
	case srv.closing:
		return refuse(loginServiceUnavailable, "server is shutting down")
	case srv.loggedIn >= srv.options().MaxConnections:
		return refuse(loginOutOfResources, "connection limit of %d reached", srv.loggedIn)
	}
	return nil
}

// enter adds c to s. The caller holds mu.
func (srv *Server) enter(c *conn, s *session) {
	c.sess = s // from now on terminate removes c from s
	srv.pending.remove(c)
	srv.startLogins()
	srv.loggedIn++
}

// sessionOf returns the session that a login refers to by its TSIH, or nil if the
// initiator port has no such session. The caller holds mu.
func (srv *Server) sessionOf(l *login) *session {
	for s := range srv.sessions {
		if s.tsih == l.tsih() && s.id.InitiatorName == l.initiator && s.id.ISID == l.isid() {
			return s
		}
	}
	return nil
}

// newSession returns the session of a login. The caller holds mu.
func (srv *Server) newSession(l *login, id scsi.NexusID, tsih uint16) *session {
	from, _ := addrPort(l.c.nc.RemoteAddr())
	s := &session{
		srv: srv, kind: l.kind, id: id, tsih: tsih,
		conf: l.conf, view: l.security.view, admitted: readmission{conf: l.conf},
		user: l.security.user(), from: from.Addr(),
		origin: originOf(l.c.nc.RemoteAddr()),
		depth:  l.conf.options.QueueDepth,
		group:  l.c.group,
		meter:  meter{began: time.Now()},
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
	s.log = srv.log.WithFields(logrus.Fields{"initiator": id.InitiatorName, "tsih": s.tsih})
	if l.target != nil {
		s.device, s.rights = l.target.DeviceServer, l.rights()
		s.log = s.log.WithField("target", l.target.Name)
	}
	first := l.first.cmdSN()
	s.exp.Store(first)
	s.limit.Store(first + uint32(s.depth) - 1)
	return s
}

// newTSIH returns an unused, unpredictable TSIH, since logins that join a session
// identify it by the TSIH. There are fewer sessions than TSIHs. The caller holds mu.
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

// left counts a connection that has left its session.
func (srv *Server) left() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.loggedIn--
}

// remove removes a session that has ended.
func (srv *Server) remove(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
	srv.budget.leave(s.id.InitiatorName)
}

// sessionsOf returns the sessions of a target.
func (srv *Server) sessionsOf(d DeviceServer) []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []*session
	for s := range srv.sessions {
		if s.device == d {
			list = append(list, s)
		}
	}
	return list
}

// replace ends a session in favor of a new login of its initiator port.
func (s *session) replace(l *login) {
	s.log.WithFields(l.replacement(s.addresses())).Info("session replaced by a new login")
	s.disconnect()
}

// replaceConnection ends a connection in favor of a new login with its CID.
func (s *session) replaceConnection(old *conn, l *login) {
	s.log.WithFields(l.replacement([]string{old.nc.RemoteAddr().String()})).WithField("cid", old.cid).
		Info("connection replaced by a new login with its CID")
	old.close()
}

// replacement returns the log fields of a login and of what it replaces.
func (l *login) replacement(displaced []string) logrus.Fields {
	return logrus.Fields{"displaced": strings.Join(displaced, ", "), "by": l.c.nc.RemoteAddr().String()}
}

// addresses returns the remote addresses of a session's connections.
func (s *session) addresses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remoteAddresses()
}

// remoteAddresses is addresses. The caller holds mu.
func (s *session) remoteAddresses() []string {
	var list []string
	for _, c := range s.conns {
		list = append(list, c.nc.RemoteAddr().String())
	}
	return list
}

// byCID returns the connection with the given CID, or nil. The caller holds mu.
func (s *session) byCID(cid uint16) *conn {
	if i := slices.IndexFunc(s.conns, func(c *conn) bool { return c.cid == cid }); i >= 0 {
		return s.conns[i]
	}
	return nil
}
