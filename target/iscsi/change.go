package iscsi

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// change is a change of the configuration, or of what is served, in progress. There is one at
// a time.
type change struct {
	srv   *Server
	began time.Time
	locks lockTimes
	done  Reconfigured
	// asked are all connections that were asked to log out.
	asked []*conn
}

// beginChange excludes other changes, Suspend and Shutdown until end.
func (srv *Server) beginChange() (*change, error) {
	srv.changing.Lock()
	srv.mu.Lock()
	closing, suspended := srv.closing, srv.suspended
	srv.mu.Unlock()
	switch {
	case suspended:
		srv.changing.Unlock()
		return nil, ErrSuspended
	case closing:
		srv.changing.Unlock()
		return nil, ErrClosed
	}
	return &change{srv: srv, began: time.Now()}, nil
}

// end begins the time that initiators have to log out.
func (ch *change) end() {
	ch.srv.endLater(ch.asked)
	ch.srv.changing.Unlock()
}

// sessions returns all sessions, the oldest first.
func (ch *change) sessions() []*session {
	unlock := ch.locks.lock(&ch.srv.mu)
	list := ch.srv.appendSessions(nil)
	unlock()
	sortSessions(list)
	return list
}

// install makes next the configuration, with the portals that are served, of which changed
// have other attributes. It returns the sessions that an earlier configuration has admitted.
func (ch *change) install(next *configuration, changed []Portal) []*session {
	srv := ch.srv
	unlock := ch.locks.lock(&srv.mu)
	next.portals = slices.Clone(srv.conf.Load().portals)
	for i := range next.portals {
		p := &next.portals[i]
		if k := slices.IndexFunc(changed, func(c Portal) bool { return c.Listener == p.Listener }); k >= 0 {
			*p = changed[k]
		}
	}
	srv.conf.Store(next)
	list := srv.appendSessions(nil)
	unlock()
	sortSessions(list)
	return list
}

// portalUse is what a portal that closes was used for.
type portalUse struct {
	// queued and logins are connections that have not logged in.
	queued []net.Conn
	logins []*conn
	// refused are connections of sessions.
	refused map[*session][]refusal
}

// takePortal ends the service of a portal. It returns nil if that is not served.
func (ch *change) takePortal(l net.Listener) *portalUse {
	srv := ch.srv
	unlock := ch.locks.lock(&srv.mu)
	before := srv.conf.Load()
	if !srv.removePortal(l) {
		unlock()
		return nil
	}
	use := &portalUse{queued: srv.pending.removeAtPortal(l), refused: make(map[*session][]refusal)}
	var resumed []*conn
	why := fmt.Errorf("portal %v is closed", l.Addr())
	for c := range srv.conns {
		switch {
		case c.at.Listener == nil:
			resumed = append(resumed, c)
		case c.at.Listener != l:
		case c.sess == nil:
			use.logins = append(use.logins, c)
		default:
			use.refused[c.sess] = append(use.refused[c.sess], refusal{c, why})
		}
	}
	unlock()
	for _, c := range resumed {
		if p, ok := before.portalOf(c); ok && p.Listener == l {
			use.refused[c.sess] = append(use.refused[c.sess], refusal{c, why})
		}
	}
	return use
}

// add records what was done to a session.
func (ch *change) add(s *session, r readmission) {
	if r.changed {
		ch.done.Readmitted++
	}
	if len(r.asked) == 0 {
		return
	}
	ch.asked = append(ch.asked, r.asked...)
	ch.done.LoggingOut = append(ch.done.LoggingOut, LogoutRequest{
		InitiatorName: s.id.InitiatorName, TargetName: s.id.TargetName, TSIH: s.tsih, Reason: r.why,
	})
}

// result returns what was done.
func (ch *change) result() Reconfigured {
	ch.done.Took, ch.done.LongestLock = time.Since(ch.began), ch.locks.longest
	return ch.done
}

// appendSessions appends all sessions to list. The caller holds mu.
func (srv *Server) appendSessions(list []*session) []*session {
	list = slices.Grow(list, len(srv.sessions))
	for s := range srv.sessions {
		list = append(list, s)
	}
	return list
}

// allSessions returns all sessions.
func (srv *Server) allSessions() []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.appendSessions(nil)
}

// sortSessions sorts sessions, the oldest first.
func sortSessions(list []*session) {
	slices.SortFunc(list, func(a, b *session) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.tsih, b.tsih))
	})
}

// lockTimes has the longest time for which locks were held.
type lockTimes struct{ longest time.Duration }

// lock locks mu, and returns a function that unlocks it.
func (t *lockTimes) lock(mu *sync.Mutex) (unlock func()) {
	mu.Lock()
	since := time.Now()
	return func() {
		held := time.Since(since)
		mu.Unlock()
		t.longest = max(t.longest, held)
	}
}
