package iscsi

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"
)

// Reconfiguration is what a running Server is to have from now on, as a whole.
//
// At once, also for sessions that exist, apply: Targets, Portals, and of Options
// DiscoveryAuthentication, MaxSessions, MaxSessionsPerInitiator, MaxConnections,
// MaxUnauthenticated, MaxUnauthenticatedPerAddress, LoginTimeout, LoginPatience, Workers,
// MaxWorkers, MaxTransferLength, BufferBytes, StallTimeout, PingInterval, PingTimeout,
// AbortTimeout and LogoutTimeout. Sessions and connections above a lowered limit stay, memory
// above a lowered BufferBytes is given back as it is released, workers above a lowered Workers
// end with their command, those above a lowered MaxWorkers when they are idle, and a login in
// progress keeps its LoginTimeout.
//
// To sessions that begin later apply, because they are negotiated: ConnectionsPerSession,
// MaxRecvDataSegmentLength, MaxBurstLength, FirstBurstLength and QueueDepth.
type Reconfiguration struct {
	// Options are those of NewServer. Log, Pool, Settler and Owned cannot change, and are
	// ignored.
	Options Options
	// Targets are all targets. One continues if its name and its DeviceServer are those
	// of before.
	Targets []TargetConfig
	// Portals have new values of Group and Advertise for portals that are served, by
	// Listener. Other portals keep theirs. The connections of a portal whose group changes
	// are asked to log out.
	Portals []Portal
}

// Reconfigured reports what a change did to the sessions.
type Reconfigured struct {
	// LoggingOut are those that were asked to log out, the oldest first.
	LoggingOut []LogoutRequest
	// Readmitted is the number of sessions that continue with other rights.
	Readmitted int
	// Took is the duration of the change, and LongestLock the longest time for which it
	// held a lock that logins or commands take.
	Took, LongestLock time.Duration
}

// LogoutRequest is a session that was asked to log out (RFC 7143 11.9.1, AsyncEvent 1), with
// all of its connections or with some.
type LogoutRequest struct {
	InitiatorName string
	// TargetName is empty for a discovery session.
	TargetName string
	TSIH       uint16
	// Reason is why, for the log.
	Reason error
}

// ErrNoSession is returned by EndSession if there is no session with the TSIH.
var ErrNoSession = errors.New("iscsi: no such session")

// ErrPortalClosed is returned by Serve after ClosePortal.
var ErrPortalClosed = errors.New("iscsi: portal is closed")

// Check returns an error for the first invalid option or target.
func (r *Reconfiguration) Check() error {
	o, services := r.Options, DefaultOptions()
	o.Log, o.Pool, o.Settler, o.Owned = services.Log, services.Pool, services.Settler, services.Owned
	_, err := newConfiguration(o, r.Targets)
	return err
}

// Reconfigure makes the server have what r says. A login sees all of it or nothing of it:
// one in progress is decided by r, or refused so that the initiator tries again. Sessions
// are admitted again. One whose target, portal group, user or access is gone is asked to log
// out, refused new commands (BUSY), and ended after LogoutTimeout; the same applies to a
// connection whose address lost the access that others of its session have. A session whose
// view is another one now continues with that (DeviceServer.Readmit), and others notice
// nothing. A user whose secret is another one keeps its sessions.
//
// It returns an error only before its first change: of Check, ErrClosed or ErrSuspended. It
// excludes Suspend and Shutdown, which wait for it.
func (srv *Server) Reconfigure(r Reconfiguration) (Reconfigured, error) {
	next, err := newConfiguration(srv.withServices(r.Options), r.Targets)
	if err != nil {
		return Reconfigured{}, err
	}
	ch, err := srv.beginChange()
	if err != nil {
		return Reconfigured{}, err
	}
	defer ch.end()
	sessions := ch.install(next, r.Portals)
	srv.budget.setLimit(next.options.BufferBytes)
	srv.watchdog.adjust()
	srv.checkPendingLogins() // more may become active
	for _, s := range sessions {
		ch.add(s, s.readmit(next, &ch.locks))
	}
	for _, t := range next.targets {
		if t.Configure != nil {
			t.configure(sessions)
		}
	}
	return ch.result(), nil
}

// withServices returns o with the services of the server.
func (srv *Server) withServices(o Options) Options {
	o.Log, o.Pool, o.Settler, o.Owned = srv.log, srv.pool, srv.settler, srv.owned
	return o
}

// ClosePortal ends a portal: its Serve returns ErrPortalClosed, its listener is closed, and
// SendTargets does not report it any more. Connections that have not logged in are closed.
// The others that came through it are asked to log out, and ended after LogoutTimeout; so are
// those of another process (Resume) at its address.
//
// It returns an error, and does nothing, if no such portal is served, and after Shutdown and
// Suspend.
func (srv *Server) ClosePortal(l net.Listener) (Reconfigured, error) {
	ch, err := srv.beginChange()
	if err != nil {
		return Reconfigured{}, err
	}
	defer ch.end()
	use := ch.takePortal(l)
	if use == nil {
		return Reconfigured{}, ErrPortalClosed
	}
	if err := l.Close(); err != nil {
		srv.log.WithError(err).WithField("portal", l.Addr().String()).Warn("close portal")
	}
	for _, nc := range use.queued {
		nc.Close()
	}
	for _, c := range use.logins {
		c.close()
	}
	sessions := slices.Collect(maps.Keys(use.refused))
	sortSessions(sessions)
	for _, s := range sessions {
		ch.add(s, s.requestLogout(use.refused[s]))
	}
	return ch.result(), nil
}

// EndSession asks the initiator of a session to log out, and ends the session after
// LogoutTimeout. It does not wait. The initiator may log in again.
func (srv *Server) EndSession(tsih uint16) error {
	ch, err := srv.beginChange()
	if err != nil {
		return err
	}
	defer ch.end()
	for _, s := range ch.sessions() {
		if s.tsih == tsih {
			ch.add(s, s.requestLogout(s.refuseAll(errEnded)))
			return nil
		}
	}
	return fmt.Errorf("%w: TSIH %d", ErrNoSession, tsih)
}

// errEnded is why a session is asked to log out by EndSession.
var errEnded = errors.New("ended by the administrator")
