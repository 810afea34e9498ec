package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/bufpool"
	"odx/target/scsi"
)

// TargetConfig configures a target.
type TargetConfig struct {
	// Name is the iSCSI name, in lower case (RFC 7143 4.2.7).
	Name string
	// Alias is the TargetAlias that initiators may display, or "".
	Alias string
	// PortalGroups are the tags of the target's portal groups (RFC 7143 4.4.1). If nil,
	// the target is in all groups of the server.
	PortalGroups []uint16
	// Redirect redirects logins, or is nil.
	Redirect *Redirect
	// Director, if not nil, sends initiators to where the target is at the moment. Then there is no
	// DeviceServer, and no normal session.
	Director Director
	// DeviceServer runs the target's commands.
	DeviceServer DeviceServer
	// Authentication is the authentication of normal sessions.
	Authentication Authentication
	// Admit reports who may use the target. If nil, all initiators may use all LUNs.
	Admit Admit
	// Configure, if not nil, makes the device server what it is to be with this
	// configuration. Reconfigure calls it, once, with the rights that nexuses have from then
	// on (ok is false for one that keeps its own), so that a list of LUNs and the views of it
	// change in one step. Until it returns, no session of the target begins by this
	// configuration, and initiators that may not continue get BUSY. It must not call the
	// server. NewServer does not call it.
	Configure func(rights func(n *scsi.Nexus) (r scsi.Rights, ok bool))
}

// Redirect redirects the logins of a target (RFC 7143 11.13.5).
type Redirect struct {
	// Address is host:port, an IPv6 address in brackets.
	Address string
	// Permanent reports a permanent move.
	Permanent bool
}

// Director knows where a target is that is now here and now there. Its methods are called
// concurrently and do not block.
type Director interface {
	// Login returns the address, host:port, to which a login is sent for the time being; ok is
	// false while the target is nowhere, and the initiator is to try again.
	Login() (address string, ok bool)
	// Discovered returns the values of TargetAddress that discovery reports in place of the
	// portals of the server.
	Discovered() []string
}

type target struct {
	TargetConfig
	// configured is closed when Configure has returned.
	configured chan struct{}
}

// newTarget returns a target, which is configured unless it has a Configure to be called.
func newTarget(c TargetConfig) *target {
	t := &target{c, make(chan struct{})}
	if c.Configure == nil {
		close(t.configured)
	}
	return t
}

// began makes a target of NewServer, of which Configure is not called, a configured one.
func (t *target) began() {
	if t.Configure != nil {
		close(t.configured)
	}
}

// inGroup reports whether the target is in the portal group with the given tag.
func (t *target) inGroup(tag uint16) bool {
	return t.PortalGroups == nil || slices.Contains(t.PortalGroups, tag)
}

// Portal is a network portal (RFC 7143 4.1.1).
type Portal struct {
	net.Listener
	// Group is the tag of the portal group (RFC 7143 4.4.1).
	Group uint16
	// Advertise is the address, host:port, that discovery reports. If empty, it reports
	// the listener's.
	Advertise string
}

// Server serves targets on any number of portals.
type Server struct {
	// Services of Options, which do not change.
	log     *logrus.Entry
	pool    *bufpool.Pool
	settler Settler
	owned   func() error
	// conf is everything else that is configured. It is replaced with mu held.
	conf atomic.Pointer[configuration]

	watchdog watchdog
	budget   *budget
	slow     slowLog

	tasks sync.Pool // of *task
	pdus  sync.Pool // of *outPDU

	// wg counts listeners, connections (reader and writer), task management, the watchdog
	// and the budget. workers counts goroutines that may hang in a DeviceServer.
	wg, workers sync.WaitGroup
	working     atomic.Int32 // workers of sessions

	// changing excludes reconfigurations, suspension and shutdown from each other.
	changing sync.Mutex

	mu       sync.Mutex // guards the fields below
	conns    map[*conn]struct{}
	sessions map[*session]struct{}
	pending  pendingLogins
	loggedIn int // connections of sessions
	closing  bool
	// suspended goes with closing: listeners stay open.
	suspended bool
	// ending is closed with closing.
	ending chan struct{}
	// settled has a value when a login may have been the last one; see AwaitLogins.
	settled chan struct{}
	// aside is the length of the PDUs that readers have set aside in a suspension.
	aside atomic.Int64
}

var (
	// ErrClosed is returned by Serve on a server that was shut down.
	ErrClosed = errors.New("iscsi: server is shut down")
	// ErrSuspended is returned by Serve on a server that was suspended. The listener is
	// open.
	ErrSuspended = errors.New("iscsi: server is suspended")
	// errTooManyLogins is why a pending connection is evicted.
	errTooManyLogins = errors.New("evicted: limit of unauthenticated connections reached")
)

// NewServer returns a server for the given targets, or an error if an option or a
// target is invalid.
func NewServer(o Options, targets []TargetConfig) (*Server, error) {
	conf, err := newConfiguration(o, targets)
	if err != nil {
		return nil, err
	}
	for _, t := range conf.targets {
		t.began()
	}
	srv := newServer(conf)
	srv.watchdog = watchdog{srv: srv, wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}), adjusted: make(chan struct{}, 1)}
	srv.wg.Go(srv.watchdog.run)
	srv.wg.Go(func() { srv.slow.run(srv.watchdog.stop) })
	srv.wg.Go(srv.budget.serve)
	return srv, nil
}

// newServer returns a server without goroutines.
func newServer(conf *configuration) *Server {
	o := &conf.options
	srv := &Server{
		log: o.Log, pool: o.Pool, settler: o.Settler, owned: o.Owned,
		budget:   newBudget(o.BufferBytes),
		slow:     slowLog{queue: make(chan slowCommand, slowQueue)},
		conns:    make(map[*conn]struct{}),
		sessions: make(map[*session]struct{}),
		ending:   make(chan struct{}), settled: make(chan struct{}, 1),
	}
	srv.conf.Store(conf)
	return srv
}

// Serve accepts connections on a portal until ctx ends (it then returns nil), the listener
// fails, the portal is closed (ErrPortalClosed), or the server is shut down (ErrClosed) or
// suspended (ErrSuspended). It closes the listener, unless the server was suspended.
// Accepted connections continue until Shutdown or Suspend.
func (srv *Server) Serve(ctx context.Context, p Portal) error {
	srv.mu.Lock()
	if srv.closing {
		defer srv.mu.Unlock()
		if srv.suspended {
			return ErrSuspended
		}
		p.Close()
		return ErrClosed
	}
	srv.addPortal(p)
	srv.wg.Add(1)
	srv.mu.Unlock()
	defer srv.wg.Done()

	stop := context.AfterFunc(ctx, func() { p.Close() })
	defer stop()
	err := srv.accept(ctx, p)
	if err != ErrSuspended || !stop() || setListenerDeadline(p.Listener, time.Time{}) != nil {
		p.Close()
	}

	srv.mu.Lock()
	served := srv.removePortal(p.Listener)
	closing := srv.closing
	srv.mu.Unlock()
	switch {
	case err == ErrSuspended:
		return err
	case closing:
		return ErrClosed
	case !served:
		return ErrPortalClosed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (srv *Server) accept(ctx context.Context, l Portal) error {
	for {
		nc, err := l.Accept()
		if err == nil {
			srv.open(nc, l)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) { // of AwaitLogins, or of a suspension
			<-srv.ending
			if srv.isSuspended() {
				return ErrSuspended
			}
		}
		var ne net.Error
		if errors.Is(err, net.ErrClosed) || !errors.As(err, &ne) {
			return fmt.Errorf("iscsi: portal %s: %w", l.Addr(), err)
		}
		// For example, out of file descriptors, or the peer has already disconnected.
		srv.log.WithError(err).Warn("accept connection")
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// open adds a connection, or closes it if too many are pending.
func (srv *Server) open(nc net.Conn, at Portal) {
	srv.mu.Lock()
	at, served := srv.conf.Load().portal(at.Listener) // its group may have changed
	ok := served && !srv.closing && srv.pending.add(nc, at, srv.options())
	if ok {
		srv.startLogins()
	}
	warn := !ok && served && !srv.closing && srv.pending.mayWarn()
	pending := srv.pending.all
	srv.mu.Unlock()
	if ok {
		return
	}
	if warn {
		srv.log.WithFields(logrus.Fields{"from": nc.RemoteAddr(), "logins": pending.active, "waiting": pending.queued}).
			Warn("connection refused: limit of unauthenticated connections of its address reached")
	}
	nc.Close()
}

// startLogins starts the pending logins that may become active. The caller holds mu.
func (srv *Server) startLogins() {
	for !srv.closing {
		l, evicted := srv.pending.next(srv.options())
		if l == nil {
			return
		}
		if evicted != nil {
			evicted.log.WithError(errTooManyLogins).Warn("connection closed")
			evicted.close()
		}
		l.c = srv.newConn(l.nc, l.at)
		srv.conns[l.c] = struct{}{}
		srv.wg.Add(1)
		go srv.runReader(l.c.serve)
	}
}

// checkPendingLogins closes connections that were queued for too long, and evicts logins
// that make no progress.
func (srv *Server) checkPendingLogins() {
	srv.mu.Lock()
	expired := srv.pending.expire(time.Now().Add(-srv.options().LoginTimeout))
	srv.startLogins()
	srv.mu.Unlock()
	for _, nc := range expired {
		nc.Close()
	}
}

func (srv *Server) newConn(nc net.Conn, at Portal) *conn {
	c := &conn{
		srv: srv, nc: nc, at: at, group: at.Group, log: srv.log.WithField("from", nc.RemoteAddr()), params: defaultParams(),
		left: make(chan struct{}), wrote: make(chan struct{}), suspended: suspendedConn{parked: make(chan struct{})},
	}
	c.text.ttt = reservedTag
	c.in = newReader(nc, srv.pool)
	c.in.readOn = c.readOn
	c.out = sender{
		nc: nc, now: newNonblockingWriter(nc), owned: srv.owned, pool: srv.pool, budget: srv.budget, pdus: &srv.pdus,
		window: func() (uint32, uint32) { return 0, 0 },
		failed: c.sendFailed,
		kick:   make(chan struct{}, 1), done: make(chan struct{}),
	}
	return c
}

// runReader runs a reader. A reader that lost its connection is counted in workers.
func (srv *Server) runReader(read func() (lost bool)) {
	if read() {
		srv.workers.Done()
	} else {
		srv.wg.Done()
	}
}

func (c *conn) sendFailed(err error) {
	if !isDisconnect(err) {
		c.log.WithError(err).Warn("connection closed: send failed")
	}
	c.close()
}

// forget removes a connection that has ended.
func (srv *Server) forget(c *conn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.conns, c)
	srv.pending.remove(c)
	srv.startLogins()
	srv.noteSettled()
}

// appendConns appends all connections to list.
func (srv *Server) appendConns(list []*conn) []*conn {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for c := range srv.conns {
		list = append(list, c)
	}
	return list
}

// checkInterval returns the interval of the checks for silent, stalled and pending
// initiators.
func (srv *Server) checkInterval() time.Duration {
	o := srv.options()
	tick := min(o.StallTimeout, o.PingTimeout, o.LoginTimeout, o.LoginPatience)
	if o.PingInterval > 0 {
		tick = min(tick, o.PingInterval)
	}
	return max(min(tick/4, time.Second), time.Millisecond)
}
