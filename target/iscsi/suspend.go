package iscsi

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"odx/target/handover"
)

// Suspended is what a server leaves to another one, possibly in another process: the state
// of its sessions, and their connections.
type Suspended struct {
	State *handover.State
	// Conns are the connections; handover.Connection.Socket is the index. They must stay
	// nonblocking, for which a duplicate is passed without os.File.Fd.
	Conns []net.Conn
	// Attached, if it is not nil, is called by Resume when the nexuses of all sessions are
	// there and no command has been read.
	Attached func()
}

// Close closes the connections. Those that another process has as well go on there.
func (s *Suspended) Close() error {
	var errs []error
	for _, nc := range s.Conns {
		errs = append(errs, nc.Close())
	}
	return errors.Join(errs...)
}

// parkLimit bounds how long a reader may take to park after commands had their time. It
// only matters if it does not get a processor.
const parkLimit = 200 * time.Millisecond

// lingerLimit bounds how long connections that end anyway, for example after a logout, may
// wait for their initiators.
const lingerLimit = 50 * time.Millisecond

// AwaitLogins accepts no more connections, which wait in the kernel, and returns when no login
// and no discovery session is in progress, which Suspend would close, or when ctx ends. Other
// sessions go on. Suspend or Shutdown has to follow.
func (srv *Server) AwaitLogins(ctx context.Context) {
	for _, p := range srv.conf.Load().portals {
		// One without deadlines is closed by Suspend.
		_ = setListenerDeadline(p.Listener, aLongTimeAgo)
	}
	for !srv.allLoggedIn() {
		select {
		case <-srv.settled:
		case <-srv.ending:
			return
		case <-ctx.Done():
			return
		}
	}
}

// allLoggedIn reports whether all connections are in the full feature phase of normal
// sessions.
func (srv *Server) allLoggedIn() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for c := range srv.conns {
		if !c.fullFeature.Load() || c.sess.kind != sessionNormal {
			return false
		}
	}
	return srv.pending.all.queued == 0
}

// noteSettled wakes AwaitLogins after the end of a login or of a connection.
func (srv *Server) noteSettled() {
	select {
	case srv.settled <- struct{}{}:
	default:
	}
}

// end ends the server, once. The caller holds mu.
func (srv *Server) end() {
	if !srv.closing {
		srv.closing = true
		close(srv.ending)
	}
}

// Suspend ends the server and leaves its sessions to another one (Resume), which
// initiators do not notice. Listeners stay open, and are not accepted from. Running
// commands may continue until ctx ends, and their responses are sent. A connection is
// closed, and its commands aborted, if that does not suffice, if it has not logged in, if its
// initiator was asked to log out, and in a discovery session. Suspend waits for a
// reconfiguration in progress. When Suspend returns, all goroutines of the server have ended,
// except (ErrCommandsRunning, with which the result is valid) those in a DeviceServer.
// Nexuses of the sessions are not detached.
func (srv *Server) Suspend(ctx context.Context) (*Suspended, error) {
	by, end := newSuspension(ctx)
	defer end()
	conns, err := srv.beginSuspension(by)
	if err != nil {
		return nil, err
	}
	waits := []func(){
		interruptAfter(ctx, func() { interruptLate(conns) }),
		interruptAfter(by.rest, func() { interrupt(conns) }),
	}
	parked := by.await(conns)
	for _, callOff := range waits {
		callOff() // before endSending resets the deadlines
	}
	close(srv.watchdog.stop)
	<-srv.watchdog.stopped // it sends pings
	parked = slices.DeleteFunc(parked, func(c *conn) bool { return !c.endSending() })
	srv.endWorkers()
	close(srv.budget.stop)
	if !waitFor(&srv.wg, lingerLimit) {
		for _, c := range srv.appendConns(nil) {
			if !slices.Contains(parked, c) {
				c.close()
			}
		}
		srv.wg.Wait()
	}
	err = srv.awaitWorkers(parkLimit)
	return srv.take(ctx, parked), err
}

// interruptAfter calls do when ctx ends, unless the result is called before. That returns when do
// does not run any more.
func interruptAfter(ctx context.Context, do func()) (callOff func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		do()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// beginSuspension stops the server from accepting connections, and interrupts readers. It
// returns the connections that may be handed over.
func (srv *Server) beginSuspension(by *suspension) ([]*conn, error) {
	srv.changing.Lock()
	defer srv.changing.Unlock()
	srv.mu.Lock()
	if srv.closing {
		srv.mu.Unlock()
		return nil, ErrClosed
	}
	srv.end()
	srv.suspended = true
	portals := srv.conf.Load().portals
	waiting := srv.pending.expire(time.Now().Add(time.Hour)) // all
	srv.mu.Unlock()
	for _, nc := range waiting {
		nc.Close()
	}
	for _, p := range portals {
		if setListenerDeadline(p.Listener, aLongTimeAgo) != nil {
			p.Close() // which also ends Accept
		}
	}
	conns := slices.DeleteFunc(srv.appendConns(nil), func(c *conn) bool { return !c.beginSuspension(by) })
	interrupt(conns)
	return conns, nil
}

// beginSuspension makes the reader drain the connection, or closes it and returns false. A
// connection whose initiator was asked to log out ends here: the other server does not have
// the request.
func (c *conn) beginSuspension(by *suspension) bool {
	if !c.fullFeature.Load() || c.sess.kind != sessionNormal || c.leaving.Load() {
		c.close()
		return false
	}
	c.sess.mu.Lock()
	c.sess.suspended = true
	c.sess.mu.Unlock()
	c.suspended.by.Store(by)
	return true
}

// interrupt ends reads that wait for the peer.
func interrupt(conns []*conn) {
	for _, c := range conns {
		if c.nc.SetReadDeadline(aLongTimeAgo) != nil {
			c.close()
		}
	}
}

// setListenerDeadline sets the deadline of Accept, or returns an error if the listener has
// none.
func setListenerDeadline(l net.Listener, t time.Time) error {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return errors.ErrUnsupported
	}
	return d.SetDeadline(t)
}

func (srv *Server) isSuspended() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.suspended
}

// interruptLate interrupts readers after commands had their time, also those that wait for
// the peer to receive.
func interruptLate(conns []*conn) {
	interrupt(conns)
	for _, c := range conns {
		if c.notReading.Load() && c.suspended.fate.CompareAndSwap(false, true) {
			c.sess.log.WithError(errUnreceived).Warn("connection closed")
			c.close()
		}
	}
}

// await waits until the readers have parked or their connections have ended, and returns
// those that have parked.
func (by *suspension) await(conns []*conn) (parked []*conn) {
	limit, cancel := context.WithCancel(context.WithoutCancel(by.ctx))
	defer cancel()
	stop := context.AfterFunc(by.ctx, func() {
		late := time.AfterFunc(parkLimit, cancel)
		context.AfterFunc(limit, func() { late.Stop() })
	})
	defer stop()
	for _, c := range conns {
		select {
		case <-c.suspended.parked:
		case <-c.left:
		case <-limit.Done():
			if c.suspended.fate.CompareAndSwap(false, true) {
				c.sess.log.WithError(errStillRuns).Warn("connection closed")
				c.close()
			}
			select {
			case <-c.suspended.parked:
			case <-c.left:
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(conns), func(c *conn) bool {
		select {
		case <-c.left:
			return true
		default:
			return false
		}
	})
}

// endSending ends the writer of a connection whose reader has parked. It reports whether
// everything was sent; otherwise the connection has ended.
func (c *conn) endSending() bool {
	sent := c.out.waitBelow(0, minDrain)
	c.out.close()
	<-c.wrote
	if sent && !c.closed.Load() && c.nc.SetDeadline(time.Time{}) == nil {
		return true
	}
	c.terminate(errUnreceived)
	return false
}

// endWorkers ends the idle workers of the sessions. None has a command.
func (srv *Server) endWorkers() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.mu.Lock()
		s.closed = true
		s.retire(s.idle)
		s.abandonClaims()
		s.mu.Unlock()
	}
}

// take takes the connections out of the server, with the state of their sessions.
func (srv *Server) take(ctx context.Context, parked []*conn) *Suspended {
	out := &Suspended{State: &handover.State{Version: handover.Version}}
	unread := 0
	for _, s := range srv.takeSessions() {
		if len(s.conns) == 0 {
			continue
		}
		h := s.suspend(ctx)
		early := s.takeEarlyBytes()
		for _, c := range s.conns {
			if !slices.Contains(parked, c) {
				continue
			}
			b := append(early[c], c.unread()...)
			c.in.release()
			if unread += len(b); unread > handover.MaxUnread {
				s.log.WithError(errTooMuch).Warn("connection closed")
				c.close()
				continue
			}
			h.Connections = append(h.Connections, c.suspend(len(out.Conns), b))
			out.Conns = append(out.Conns, c.nc)
		}
		if len(h.Connections) > 0 {
			out.State.Sessions = append(out.State.Sessions, h)
		}
	}
	return out
}

// takeSessions removes the sessions and connections from the server, and returns the
// sessions, the oldest first.
func (srv *Server) takeSessions() []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	list := srv.appendSessions(nil)
	clear(srv.sessions)
	clear(srv.conns)
	sortSessions(list)
	return list
}

// suspend returns the state of a session without its connections. It has no task.
func (s *session) suspend(ctx context.Context) handover.Session {
	p := &s.params
	h := handover.Session{
		Initiator: s.id.InitiatorName, Alias: p.initiatorAlias, ISID: s.id.ISID[:], TSIH: s.tsih,
		Target: s.id.TargetName, PortalGroup: s.id.TargetPortalGroupTag, User: s.user,
		ExpCmdSN: s.exp.Load(), MaxCmdSN: s.limit.Load(), Since: s.since,
		Keys: handover.Keys{
			MaxConnections: p.maxConnections, InitialR2T: p.initialR2T, ImmediateData: p.immediateData,
			MaxBurstLength: p.maxBurst, FirstBurstLength: p.firstBurst, MaxOutstandingR2T: p.maxOutstandingR2T,
			DefaultTime2Wait: p.time2Wait, DefaultTime2Retain: p.time2Retain,
			ErrorRecoveryLevel: p.errorRecoveryLevel, ProtocolLevel: p.protocolLevel,
		},
		Nexus: s.device.Suspend(ctx, s.nexus),
	}
	for sn, e := range s.early {
		if e.pdu == nil {
			h.Aborted = append(h.Aborted, sn)
		}
	}
	slices.SortFunc(h.Aborted, compareSerial)
	return h
}

// compareSerial orders sequence numbers (RFC 1982, 32 bits).
func compareSerial(a, b uint32) int { return int(int32(a - b)) }

// takeEarlyBytes removes the kept PDUs, and returns them as they were on the wire, by
// connection.
func (s *session) takeEarlyBytes() map[*conn][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var order []uint32
	for sn := range s.early {
		order = append(order, sn)
	}
	slices.SortFunc(order, compareSerial)
	raw := map[*conn][]byte{}
	for _, sn := range order {
		e := s.early[sn]
		s.freeEarly(e)
		if e.pdu == nil {
			continue
		}
		for _, p := range append([]*pdu{e.pdu}, e.data...) {
			in := e.conn.in
			raw[e.conn] = in.appendSegment(in.appendHeader(raw[e.conn], p), p.kept)
		}
	}
	clear(s.early)
	return raw
}

// suspend returns the state of a connection. Its reader and writer have ended.
func (c *conn) suspend(socket int, unread []byte) handover.Connection {
	return handover.Connection{
		Socket: socket, CID: c.cid, StatSN: c.out.nextStatSN(), ExpStatSN: c.fences.acked.Load(), TransferTag: c.ttt,
		HeaderDigest: c.params.headerDigest, DataDigest: c.params.dataDigest,
		InitiatorSegment: c.params.peerMaxRecv, TargetSegment: c.params.maxRecv,
		Unread: unread,
	}
}
