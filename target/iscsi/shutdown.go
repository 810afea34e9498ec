package iscsi

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"odx/target/scsi"
)

// asyncLogoutRequest is the event of an Asynchronous Message that asks the
// initiator to log out (RFC 7143 11.9.1).
const asyncLogoutRequest = 1

// ErrCommandsRunning is returned by Shutdown when commands do not return from
// their DeviceServer, although they were aborted.
var ErrCommandsRunning = errors.New("iscsi: aborted commands are still running")

// Shutdown ends the server: no portal accepts, initiators are asked to log out
// and get LogoutTimeout for it, new commands are answered BUSY, commands that
// run may go on until ctx ends and are aborted then. When it returns, every
// goroutine of the server has ended, except (ErrCommandsRunning) those of
// commands that a DeviceServer does not return from.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.mu.Lock()
	already := srv.closing
	srv.closing = true
	portals := slices.Clone(srv.portals)
	waiting := srv.pending.expire(time.Now().Add(time.Hour)) // all
	srv.mu.Unlock()
	for _, nc := range waiting {
		nc.Close()
	}
	if already {
		return ErrClosed
	}
	for _, l := range portals {
		l.Close()
	}
	srv.askToLogOut()
	srv.awaitQuiet(ctx)
	for _, c := range srv.appendConns(nil) {
		c.close()
	}
	// A reader that hangs in a command loses its place within two ticks, so
	// that connections end now; the watchdog is needed for that.
	srv.awaitConns()
	close(srv.watchdog.stop)
	close(srv.budget.stop)
	srv.wg.Wait()
	return srv.awaitWorkers()
}

// askToLogOut tells every initiator that the server ends.
func (srv *Server) askToLogOut() {
	for _, c := range srv.appendConns(nil) {
		if !c.fullFeature.Load() {
			c.close() // nothing was begun
			continue
		}
		s := c.sess
		s.mu.Lock()
		s.draining = true
		s.mu.Unlock()
		p := c.out.get(opAsync, reservedTag)
		p.bhs[36] = asyncLogoutRequest
		p.put16(42, uint16(max(srv.opts.LogoutTimeout.Seconds(), 1))) // Parameter3: seconds
		c.out.queue(p, statSNAdvance)
		c.out.flush()
	}
}

// awaitQuiet waits until all initiators have logged out or, after LogoutTimeout,
// until no command runs, and not beyond ctx.
func (srv *Server) awaitQuiet(ctx context.Context) {
	grace := time.NewTimer(srv.opts.LogoutTimeout)
	defer grace.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	over := false
	for {
		conns := srv.appendConns(nil)
		if len(conns) == 0 || over && !slices.ContainsFunc(conns, (*conn).busy) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-grace.C:
			over = true
		case <-look.C:
		}
	}
}

// busy reports whether commands run, or their responses have not left.
func (c *conn) busy() bool {
	if !c.fullFeature.Load() {
		return false
	}
	c.sess.mu.Lock()
	defer c.sess.mu.Unlock()
	return c.sess.executing > 0 || len(c.sess.ready) > 0 || c.out.bytes.Load() > 0
}

// awaitConns waits until every connection has ended; their sockets are closed.
func (srv *Server) awaitConns() {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for len(srv.appendConns(nil)) > 0 {
		<-look.C
	}
}

// awaitWorkers waits for commands that were aborted, as long as task
// management would.
func (srv *Server) awaitWorkers() error {
	done := make(chan struct{})
	go func() {
		srv.workers.Wait()
		close(done)
	}()
	timer := time.NewTimer(srv.opts.AbortTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return ErrCommandsRunning
	}
}

// SessionInfo describes a session, for people.
type SessionInfo struct {
	InitiatorName  string
	InitiatorAlias string
	// ISID is in hexadecimal, as open-iscsi prints it.
	ISID string
	TSIH uint16
	// TargetName is empty for a discovery session.
	TargetName string
	// View is what the access list has the session see; nil: every LUN.
	View scsi.View
	// Connections are the remote addresses.
	Connections []string
	// Commands is how many are outstanding; Detached how many were aborted but
	// did not return from the store.
	Commands, Detached       int
	HeaderDigest, DataDigest bool
	Since                    time.Time
}

// Sessions lists the sessions, the oldest first.
func (srv *Server) Sessions() []SessionInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	list := make([]SessionInfo, 0, len(srv.sessions))
	for s := range srv.sessions {
		list = append(list, s.info())
	}
	slices.SortFunc(list, func(a, b SessionInfo) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.InitiatorName, b.InitiatorName)
	})
	return list
}

func (s *session) info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := SessionInfo{
		InitiatorName:  s.id.InitiatorName,
		InitiatorAlias: s.params.initiatorAlias,
		ISID:           hex.EncodeToString(s.id.ISID[:]),
		TSIH:           s.tsih,
		TargetName:     s.id.TargetName,
		View:           s.view,
		Commands:       len(s.tasks),
		Detached:       s.detached,
		HeaderDigest:   s.params.headerDigest,
		DataDigest:     s.params.dataDigest,
		Since:          s.since,
	}
	i.Connections = s.remoteAddresses()
	return i
}
