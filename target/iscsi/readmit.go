package iscsi

import (
	"errors"
	"fmt"
	"slices"

	"odx/target/scsi"
)

// errReconfigured is why admit begins again: the configuration has changed.
var errReconfigured = errors.New("reconfigured")

// readmission is what a configuration made of a session.
type readmission struct {
	conf *configuration
	// asked are the connections whose initiator was asked to log out, and why.
	asked []*conn
	why   error
	// changed: the session continues with other rights.
	changed bool
}

// refusal is a connection that may not continue.
type refusal struct {
	conn *conn
	why  error
}

// permits returns why a session of a user may not be, or nil. user is "" if the initiator has
// not authenticated.
func (a *Authentication) permits(user, initiatorName string) error {
	switch {
	case user == "" && !a.offers(valueNone):
		return errors.New("authentication is required, which the initiator has not proven")
	case user != "" && a.CHAP != nil && !a.CHAP.Allows(user, initiatorName):
		return fmt.Errorf("user %.40q is unknown, or not allowed for this initiator", user)
	}
	return nil
}

// entitled returns the target of a session, or why there is no such session any more.
func (c *configuration) entitled(name string, group uint16, user, initiatorName string) (*target, error) {
	t := c.target(name)
	if t == nil || !t.inGroup(group) {
		return nil, fmt.Errorf("no target %s in portal group %d", name, group)
	}
	if t.Redirect != nil {
		return nil, fmt.Errorf("target %s is redirected to %s", name, t.Redirect.Address)
	}
	if t.Director != nil {
		return nil, fmt.Errorf("target %s is served elsewhere", name)
	}
	return t, t.Authentication.permits(user, initiatorName)
}

// admit returns the rights of a session, and those of its connections that may not continue.
func (c *configuration) admit(s *session, conns []*conn) (rights scsi.Rights, refused []refusal) {
	t, err := c.entitledSession(s)
	admitted := false
	for _, o := range conns {
		if err != nil {
			refused = append(refused, refusal{o, err})
			continue
		}
		if p, ok := c.portalOf(o); ok && p.Group != o.group {
			refused = append(refused, refusal{o, fmt.Errorf("portal %v is in another group now", p.Addr())})
			continue
		}
		if s.kind == sessionDiscovery {
			continue
		}
		view, ok := t.admits(s.id.InitiatorName, o)
		switch {
		case !ok:
			refused = append(refused, refusal{o, fmt.Errorf("access list refuses the initiator at %v", o.nc.RemoteAddr())})
		case !admitted:
			rights, admitted = t.rights(s.id.InitiatorName, s.user, s.from, view), true
		case !sameView(rights.View, view):
			refused = append(refused, refusal{o, fmt.Errorf("access list maps other LUNs for %v than for the session", o.nc.RemoteAddr())})
		}
	}
	return rights, refused
}

// entitledSession is entitled for a session that exists. The target of a discovery session is
// nil.
func (c *configuration) entitledSession(s *session) (*target, error) {
	if s.kind == sessionDiscovery {
		return nil, c.options.DiscoveryAuthentication.permits(s.user, s.id.InitiatorName)
	}
	t, err := c.entitled(s.id.TargetName, s.id.TargetPortalGroupTag, s.user, s.id.InitiatorName)
	if err == nil && t.DeviceServer != s.device {
		err = fmt.Errorf("target %s was replaced", t.Name)
	}
	return t, err
}

// readmit decides on the session by conf, once, and reports what it did.
func (s *session) readmit(conf *configuration, locks *lockTimes) readmission {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	if s.admitted.conf == conf {
		return s.admitted
	}
	s.admitted = readmission{conf: conf}
	conns := s.holdConns(locks)
	if len(conns) == 0 {
		return s.admitted // it has ended
	}
	defer s.release()
	rights, refused := conf.admit(s, conns)
	asked := s.requestLogout(refused)
	s.admitted.asked, s.admitted.why = asked.asked, asked.why
	s.changeRights(conf, rights, len(refused) < len(conns), locks)
	return s.admitted
}

// requestLogout asks the initiator to log out from connections.
func (s *session) requestLogout(from []refusal) (r readmission) {
	for _, f := range from {
		if f.conn.leave() {
			r.asked, r.why = append(r.asked, f.conn), f.why
		}
	}
	if len(r.asked) > 0 {
		s.log.WithError(r.why).WithField("connections", len(r.asked)).Info("initiator asked to log out")
	}
	return r
}

// refuseAll returns all connections with why they may not continue.
func (s *session) refuseAll(why error) (all []refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		all = append(all, refusal{c, why})
	}
	return all
}

// holdConns returns the connections, and keeps the nexus attached until release. It returns
// nil, and does not, if the session has ended.
func (s *session) holdConns(locks *lockTimes) []*conn {
	unlock := locks.lock(&s.mu)
	defer unlock()
	if s.closed {
		return nil
	}
	s.executing++
	return slices.Clone(s.conns)
}

// changeRights records that conf has admitted the session, and gives it rights if it stays. The
// caller holds admitting.
func (s *session) changeRights(conf *configuration, rights scsi.Rights, stays bool, locks *lockTimes) {
	changed := stays && s.kind == sessionNormal && (rights.Proof != s.rights.Proof || !sameView(rights.View, s.rights.View))
	unlock := locks.lock(&s.mu)
	if s.conf = conf; changed {
		s.view = rights.View
	}
	unlock()
	if !changed {
		return
	}
	s.rights, s.admitted.changed = rights, true
	// Without a nexus, attach follows.
	if t := conf.target(s.id.TargetName); s.nexus != nil && t.Configure == nil {
		s.device.Readmit(s.nexus, rights)
	}
}

// configure calls Configure. sessions are those that the configuration has admitted again.
func (t *target) configure(sessions []*session) {
	rights := make(map[*scsi.Nexus]scsi.Rights)
	for _, s := range sessions {
		if s.device != t.DeviceServer {
			continue
		}
		s.admitting.Lock()
		if s.nexus != nil && s.admitted.changed {
			rights[s.nexus] = s.rights
		}
		s.admitting.Unlock()
	}
	t.Configure(func(n *scsi.Nexus) (r scsi.Rights, ok bool) {
		r, ok = rights[n]
		return r, ok
	})
	close(t.configured)
}

// attach creates the nexus of the session with its rights, once its target is configured for
// them.
func (s *session) attach(create func(scsi.Rights) *scsi.Nexus) {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	if t := s.admitted.conf.target(s.id.TargetName); t != nil {
		<-t.configured
	}
	s.nexus = create(s.rights)
	s.nexus.SetTaskAborter(s)
}

// addProof ends the proof of the nexus if that of a further connection is another one: the
// nexus then has two identities or addresses.
func (s *session) addProof(proof string) {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	if proof != s.rights.Proof {
		s.nexus.DropProof()
	}
}

// leaving reports whether the initiator is to log out from all connections. The caller holds
// mu.
func (s *session) leaving() bool {
	return !slices.ContainsFunc(s.conns, func(c *conn) bool { return !c.leaving.Load() })
}

// readmitFor readmits the session that a login joins, before the change that the login has
// seen has come to it.
func (srv *Server) readmitFor(l *login) {
	srv.mu.Lock()
	s := srv.sessionOf(l)
	srv.mu.Unlock()
	if s != nil {
		s.readmit(l.conf, &lockTimes{})
	}
}

// catchUp decides a login in progress by the current configuration, if that is another one
// than before.
func (l *login) catchUp() error {
	conf := l.c.srv.conf.Load()
	if conf == l.conf {
		return nil
	}
	before := l.conf
	l.conf = conf
	if p, served := conf.portal(l.c.at.Listener); served && p.Group != l.c.group {
		return refuse(loginServiceUnavailable, "%s: portal group changed during the login", l.initiator)
	}
	if !before.options.sameOffer(&conf.options) {
		return refuse(loginServiceUnavailable, "%s: limits changed during the login", l.initiator)
	}
	authentication := conf.options.DiscoveryAuthentication
	if l.kind == sessionNormal {
		if err := l.find(); err != nil {
			return err
		}
		authentication = l.target.Authentication
	}
	if err := l.follow(authentication); err != nil {
		return err
	}
	l.security.admitted = false
	return l.authorize()
}

// sameOffer reports whether a login negotiates the same with both.
func (o *Options) sameOffer(other *Options) bool {
	return o.ConnectionsPerSession == other.ConnectionsPerSession && o.MaxRecvDataSegmentLength == other.MaxRecvDataSegmentLength &&
		o.MaxBurstLength == other.MaxBurstLength && o.FirstBurstLength == other.FirstBurstLength && o.QueueDepth == other.QueueDepth
}

// follow makes a the authentication of the login, or refuses a login that is not authenticated
// by it.
func (l *login) follow(a Authentication) error {
	s := &l.security
	s.Authentication = a
	if s.exchange == nil && !s.authenticated() ||
		s.exchange != nil && a.CHAP != nil && !a.CHAP.Confirms(s.exchange) {
		return refuse(loginAuthenticationFailed, "authentication of initiator %s to %s changed during the login", l.initiator, l.service())
	}
	return nil
}

// unlessChanged returns err, or, if the configuration has changed since it was the reason for
// err, a refusal after which the initiator tries again.
func (l *login) unlessChanged(err error) error {
	var refused *loginError
	if !errors.As(err, &refused) || l.c.srv.conf.Load() == l.conf {
		return err
	}
	switch refused.status {
	case loginAuthenticationFailed, loginAuthorizationFailed, loginNotFound, loginMovedTemporarily, loginMovedPermanently:
		return refuse(loginServiceUnavailable, "configuration changed during the login; before that: %w", refused.err)
	}
	return err
}
