package iscsi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrCommandsRunning is returned by Shutdown if aborted commands have not returned from
// their DeviceServer.
var ErrCommandsRunning = errors.New("iscsi: aborted commands are still running")

// Shutdown ends the server. It closes the portals, requests a logout from initiators,
// which have LogoutTimeout for it, and answers new commands with BUSY. Running commands
// may continue until ctx ends, and are then aborted. When Shutdown returns, all
// goroutines of the server have ended, except (ErrCommandsRunning) those in a
// DeviceServer.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.changing.Lock()
	srv.mu.Lock()
	already := srv.closing
	srv.end()
	portals := srv.conf.Load().portals
	waiting := srv.pending.expire(time.Now().Add(time.Hour)) // all
	srv.mu.Unlock()
	srv.changing.Unlock()
	for _, nc := range waiting {
		nc.Close()
	}
	if already {
		return ErrClosed
	}
	for _, l := range portals {
		l.Close()
	}
	srv.requestLogout()
	srv.drain(ctx)
	srv.CloseConnections()
	// The watchdog replaces a reader that hangs in a command within two ticks, so that
	// connections end now.
	srv.awaitConns()
	close(srv.watchdog.stop)
	close(srv.budget.stop)
	srv.wg.Wait()
	return srv.awaitWorkers(srv.options().AbortTimeout)
}

// CloseConnections closes every connection at once. Nothing that is ready is sent, and
// their commands are aborted.
func (srv *Server) CloseConnections() {
	for _, c := range srv.appendConns(nil) {
		c.close()
	}
}

// requestLogout requests a logout from every initiator.
func (srv *Server) requestLogout() {
	for _, c := range srv.appendConns(nil) {
		if !c.fullFeature.Load() {
			c.close() // not logged in
			continue
		}
		s := c.sess
		s.mu.Lock()
		s.drain()
		s.mu.Unlock()
		c.requestLogout()
	}
}

// drain waits until all initiators have logged out or, after LogoutTimeout, until no
// command runs; at most until ctx ends.
func (srv *Server) drain(ctx context.Context) {
	grace := time.NewTimer(srv.options().LogoutTimeout)
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

// busy reports whether commands are running or responses are unsent.
func (c *conn) busy() bool {
	if !c.fullFeature.Load() {
		return false
	}
	c.sess.mu.Lock()
	defer c.sess.mu.Unlock()
	return c.sess.executing > 0 || len(c.sess.ready) > 0 || c.out.bytes.Load() > 0
}

// awaitConns waits until every connection has ended. Their sockets are closed.
func (srv *Server) awaitConns() {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for len(srv.appendConns(nil)) > 0 {
		<-look.C
	}
}

// awaitWorkers waits for aborted commands, for at most limit.
func (srv *Server) awaitWorkers(limit time.Duration) error {
	if !waitFor(&srv.workers, limit) {
		return ErrCommandsRunning
	}
	return nil
}

// waitFor waits for a group, and reports whether it has ended within limit. Otherwise a
// goroutine waits on.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
