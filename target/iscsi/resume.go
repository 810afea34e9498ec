package iscsi

import (
	"fmt"
	"net"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/handover"
	"odx/target/scsi"
)

// Resume continues the sessions of a server that was suspended, without a login, and
// returns the number of connections that it closed instead: those whose initiator may not
// use the target any more, or finds no target, and those above the limits. It must be
// called before Serve, once. Its connections are in no portal of the server.
func (srv *Server) Resume(s *Suspended) (closed int) {
	var all []*conn
	for i := range s.State.Sessions {
		conns, err := srv.resume(&s.State.Sessions[i], s.Conns)
		all = append(all, conns...)
		n := len(s.State.Sessions[i].Connections) - len(conns)
		if closed += n; n > 0 {
			h := &s.State.Sessions[i]
			srv.log.WithError(err).WithFields(logrus.Fields{"initiator": h.Initiator, "target": h.Target, "tsih": h.TSIH, "connections": n}).
				Warn("connections that were handed over closed")
		}
	}
	if s.Attached != nil {
		s.Attached()
	}
	// Only now: a command may affect other nexuses.
	for _, c := range all {
		c.startWriter()
		srv.wg.Add(1)
		go srv.runReader(c.read)
	}
	return closed
}

// resume makes a session, and returns its connections, whose readers have not started. It
// closes those that cannot continue; err is the last reason.
func (srv *Server) resume(h *handover.Session, sockets []net.Conn) (conns []*conn, err error) {
	var s *session
	for i := range h.Connections {
		hc := &h.Connections[i]
		if hc.Socket >= len(sockets) {
			err = fmt.Errorf("iscsi: no socket %d", hc.Socket)
			continue
		}
		l := srv.resumedLogin(h, hc, sockets[hc.Socket])
		e := l.entitle(h)
		if e == nil {
			s, e = srv.continueSession(s, l, h)
		}
		if e != nil {
			err = e
			l.c.in.release()
			l.c.close()
			continue
		}
		l.c.resume(l, hc)
		conns = append(conns, l.c)
	}
	return conns, err
}

// resumedLogin returns a connection as a login that has reached the full feature phase
// before.
func (srv *Server) resumedLogin(h *handover.Session, hc *handover.Connection, nc net.Conn) *login {
	l := &login{
		c: srv.newConn(nc, Portal{Group: h.PortalGroup}), conf: srv.conf.Load(), stage: stageFullFeature, kind: sessionNormal,
		initiator: h.Initiator, targetName: h.Target,
		params: params{
			headerDigest: hc.HeaderDigest, dataDigest: hc.DataDigest,
			maxConnections: h.Keys.MaxConnections, initialR2T: h.Keys.InitialR2T, immediateData: h.Keys.ImmediateData,
			peerMaxRecv: hc.InitiatorSegment, maxRecv: hc.TargetSegment,
			maxBurst: h.Keys.MaxBurstLength, firstBurst: h.Keys.FirstBurstLength, firstBurstAgreed: true,
			maxOutstandingR2T: h.Keys.MaxOutstandingR2T, time2Wait: h.Keys.DefaultTime2Wait, time2Retain: h.Keys.DefaultTime2Retain,
			errorRecoveryLevel: h.Keys.ErrorRecoveryLevel, protocolLevel: h.Keys.ProtocolLevel, initiatorAlias: h.Alias,
		},
	}
	copy(l.first[8:], h.ISID)
	l.first.put16(14, h.TSIH)
	l.first.put32(24, h.ExpCmdSN)
	return l
}

// entitle checks, as for a session when the configuration changes, whether the initiator may
// use the target now.
func (l *login) entitle(h *handover.Session) (err error) {
	if l.target, err = l.conf.entitled(h.Target, h.PortalGroup, h.User, h.Initiator); err != nil {
		return err
	}
	l.security.Authentication, l.security.proven = l.target.Authentication, h.User
	return l.authorize()
}

// continueSession adds a connection to s, or to a session that it makes if s is nil.
func (srv *Server) continueSession(s *session, l *login, h *handover.Session) (*session, error) {
	srv.mu.Lock()
	err := srv.mayContinue(s, l, h)
	if err != nil {
		srv.mu.Unlock()
		return s, err
	}
	added := s == nil
	if added {
		s = srv.newSession(l, l.nexusID(), h.TSIH)
		s.limit.Store(h.MaxCmdSN)
		s.since = h.Since
		srv.sessions[s] = struct{}{}
	} else {
		s.mu.Lock()
		s.conns = append(s.conns, l.c)
		s.mu.Unlock()
	}
	srv.conns[l.c] = struct{}{}
	srv.enter(l.c, s)
	srv.mu.Unlock()
	if added {
		s.resume(h, l.c)
	} else {
		s.addProof(l.rights().Proof)
	}
	return s, nil
}

// mayContinue returns why a connection cannot be in session s, or in one of its own if s
// is nil. The caller holds mu.
func (srv *Server) mayContinue(s *session, l *login, h *handover.Session) error {
	if err := srv.checkCapacity(); err != nil {
		return err
	}
	if s != nil {
		if !sameView(s.view, l.security.view) {
			return fmt.Errorf("iscsi: access list maps other LUNs for this address than for the session")
		}
		return nil
	}
	if len(srv.sessions) >= l.conf.options.MaxSessions {
		return fmt.Errorf("iscsi: session limit of %d reached", len(srv.sessions))
	}
	id := l.nexusID()
	for other := range srv.sessions {
		if other.tsih == h.TSIH || other.kind == sessionNormal && other.id == id {
			return fmt.Errorf("iscsi: session %d of %s exists", other.tsih, other.id.InitiatorName)
		}
	}
	return nil
}

// resume attaches the nexus of a session that continues. c is its first connection.
func (s *session) resume(h *handover.Session, c *conn) {
	s.attach(func(r scsi.Rights) *scsi.Nexus { return s.device.Continue(s.id, r, &h.Nexus) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sn := range h.Aborted {
		s.early[sn] = &earlyPDU{conn: c}
	}
	s.earlyWaiting.Store(len(s.early) > 0)
}

// resume sets the connection's state. Its reader continues with the unread bytes.
func (c *conn) resume(l *login, hc *handover.Connection) {
	c.cid, c.ttt = hc.CID, hc.TransferTag
	c.sess.open(c, l.params)
	c.out.statSN = hc.StatSN
	c.fences.acked.Store(hc.ExpStatSN)
	c.beginFullFeature()
	if len(hc.Unread) > 0 {
		c.in.src = &unreadFirst{bytes: hc.Unread, in: c.in, then: c.nc}
	}
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		c.close()
	}
	c.sess.log.WithField("from", c.nc.RemoteAddr()).Info("session of another process continues")
}

// unreadFirst is the source of a reader that begins with bytes that another process has
// read.
type unreadFirst struct {
	bytes []byte
	in    *reader
	then  net.Conn
}

// Read implements io.Reader. Once it has no more bytes, the reader uses the connection
// without it.
func (u *unreadFirst) Read(b []byte) (int, error) {
	n := copy(b, u.bytes)
	if u.bytes = u.bytes[n:]; len(u.bytes) == 0 {
		u.in.src = u.then
	}
	return n, nil
}
