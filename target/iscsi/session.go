package iscsi

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/scsi"
)

// sessionType is the SessionType key (RFC 7143 13.21).
type sessionType int

const (
	sessionNormal sessionType = iota
	sessionDiscovery
)

// maxImmediate bounds the outstanding immediate commands of a session, which the CmdSN
// window does not bound.
const maxImmediate = 32

// session is an I_T nexus, or a discovery session, with the state that its connections
// share, and its tasks.
type session struct {
	srv    *Server
	device DeviceServer // nil in a discovery session
	kind   sessionType
	id     scsi.NexusID
	tsih   uint16
	// from is the address of the first connection, origin its prefix.
	from   netip.Addr
	origin netip.Prefix
	user   string // authenticated CHAP name, or ""
	nexus  *scsi.Nexus
	params params
	depth  int    // Options.QueueDepth when the session began
	group  uint16 // tag of the portal group
	// shared is set if the session may have several connections. order then precedes
	// all other locks: see connections.go.
	shared bool
	order  sync.Mutex
	// barriers wait for commands that have not arrived; guarded by order.
	barriers []barrier
	since    time.Time
	log      *logrus.Entry

	// admitting serializes what creates the nexus and changes its rights. It precedes all
	// other locks but Server.changing, and guards rights and admitted.
	admitting sync.Mutex
	rights    scsi.Rights
	admitted  readmission // the last one

	// exp and limit are ExpCmdSN and MaxCmdSN (RFC 7143 4.2.2.1). limit grows when a place
	// in the window becomes free. Both change only with mu held.
	exp, limit atomic.Uint32
	// cost is the average duration of recent commands in nanoseconds, by operation code.
	cost [256]atomic.Int32
	// share is the initiator's share of the budget.
	share *share
	// earlyWaiting is set if early is not empty.
	earlyWaiting atomic.Bool
	// refuses: new commands end with BUSY. It changes only with mu held.
	refuses atomic.Bool
	// gone is closed when the session has left the server.
	gone chan struct{}

	mu sync.Mutex // guards the fields below
	// conf is the configuration by which the session was last admitted, view its view then.
	conf    *configuration
	view    scsi.View
	conns   []*conn // in order of login
	tasks   map[uint32]*task
	ready   []*task
	waiting []*task // wait for memory for Data-Out, first come, first served
	// claimIn is the claim for the Data-In of the first ready command, claimOut that for
	// the Data-Out of the first waiting command.
	claimIn, claimOut *claim
	// early has the PDUs ahead of ExpCmdSN, by CmdSN.
	early      map[uint32]*earlyPDU
	earlyBytes int // charged to the unsolicited part of the budget
	immediate  int // outstanding immediate commands
	meter      meter
	workerPool
	executing int // tasks in Execute and task management, which the nexus must outlive
	detached  int
	opened    bool // connections may join
	draining  bool // refuse new commands: the server shuts down
	closed    bool // all connections have ended
	// suspended: readers wait until the session is quiet.
	suspended bool
}

// window returns ExpCmdSN and MaxCmdSN.
func (s *session) window() (exp, limit uint32) { return s.exp.Load(), s.limit.Load() }

// addTask adds t to the session, or returns a Reject reason.
func (s *session) addTask(t *task) (rejectReason byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[t.itt] != nil {
		return rejectTaskInProgress
	}
	if t.immediate {
		if s.immediate >= maxImmediate {
			return rejectTooManyImmediate
		}
		s.immediate++
	}
	s.tasks[t.itt] = t
	return 0
}

// drain makes new commands end with BUSY. The caller holds mu.
func (s *session) drain() {
	s.draining = true
	s.refuses.Store(true)
}

// countDetached adds n to the commands that were detached. While too many hang in the store,
// new ones end with BUSY. The caller holds mu.
func (s *session) countDetached(n int) {
	s.detached += n
	s.refuses.Store(s.draining || s.detached >= s.depth)
}

// removeTask removes t from the session and frees its tag and its place in the window, but
// not its memory. The caller holds mu.
func (s *session) removeTask(t *task) {
	if t.left {
		return
	}
	t.left = true
	delete(s.tasks, t.itt)
	if t.immediate {
		s.immediate--
	} else {
		s.limit.Add(1)
	}
	s.waiting = remove(s.waiting, t)
	s.noteQuiet()
}

// free ends t without a response other than TASK ABORTED, and releases its memory. The
// caller holds mu.
func (s *session) free(t *task) {
	t.release()
	t.ended = time.Since(t.conn.in.clock)
	s.noteSlow(t)
	t.queueAborted()
	s.removeTask(t)
	t.sent()
}

func remove(tasks []*task, t *task) []*task {
	if i := slices.Index(tasks, t); i >= 0 {
		return slices.Delete(tasks, i, i+1)
	}
	return tasks
}

// complete ends t with a response. The caller holds mu.
func (s *session) complete(t *task) {
	if n := t.dataInCharge(len(t.st.DataIn())); n != t.chargeIn.n {
		t.chargeIn = s.srv.budget.resize(s.share, t.chargeIn, n)
	}
	s.meter.count(t)
	s.noteSlow(t)
	s.removeTask(t)
	t.queueResponse()
}

// abort ends t without a response: immediately or, if it is running or owned by the
// reader, as soon as that has finished. It reports whether t is in the DeviceServer.
// The caller holds mu.
func (s *session) abort(t *task) (running bool) {
	t.aborted = true
	switch t.state {
	case taskRunning:
		t.ctx.cancel()
		return true
	case taskReady:
		s.ready = remove(s.ready, t)
		s.free(t)
	case taskHeld:
		t.held.task, t.held = nil, nil
		s.free(t)
	case taskCollecting:
		s.free(t)
	}
	return false
}

// execute runs the command and records its duration.
func (t *task) execute() {
	cost, clock := &t.sess.cost[t.st.OpCode], t.conn.in.clock
	start := time.Since(clock)
	if t.timing.started == 0 {
		t.timing.started = start
	}
	t.sess.device.Execute(t.ctx, t.st)
	t.ended = time.Since(clock)
	t.timing.ran = t.ended
	t.timing.running += t.ended - start
	recordCost(cost, t.ended-start)
}

// recordCost updates an average over about the last eight commands.
func recordCost(cost *atomic.Int32, took time.Duration) {
	took = min(took, time.Second)
	old := cost.Load()
	if old == 0 {
		cost.Store(max(int32(took), 1))
		return
	}
	cost.Store(max(old+(int32(took)-old)/8, 1))
}

// finish ends a command that has run. It reports whether the command was detached: then
// another worker has replaced this one.
func (s *session) finish(t *task) (replaced bool) {
	s.mu.Lock()
	s.executing--
	t.notifyEnded()
	replaced = t.detached
	switch {
	case t.detached:
		s.countDetached(-1)
		s.free(t)
	case t.aborted:
		s.free(t)
	case t.st.More():
		s.continueStream(t)
	default:
		s.complete(t)
	}
	s.noteQuiet()
	last := s.closed && s.executing == 0
	s.mu.Unlock()
	if last {
		s.detachNexus()
	}
	return replaced
}

// notifyEnded notifies task management that t has ended. The caller holds mu.
func (t *task) notifyEnded() {
	if t.over != nil {
		close(t.over)
		t.over = nil
	}
}

// detach abandons a running, aborted task. It frees its tag, its place in the window and
// its worker; the task keeps its buffers until Execute returns. The caller holds mu.
func (s *session) detach(t *task) {
	t.detached = true
	t.st.Leave() // the task set no longer waits for it
	t.notifyEnded()
	s.countDetached(1)
	t.queueAborted()
	s.removeTask(t)
	if t.onWorker {
		s.running--
		s.spawn()
	}
}

// hold keeps the nexus attached until release.
func (s *session) hold() {
	s.mu.Lock()
	s.executing++
	s.mu.Unlock()
}

func (s *session) release() {
	s.mu.Lock()
	s.executing--
	s.noteQuiet()
	last := s.closed && s.executing == 0
	s.mu.Unlock()
	if last {
		s.detachNexus()
	}
}

// open sets the parameters of a connection, and allows others to join, after the nexus was
// attached.
func (s *session) open(c *conn, p params) {
	s.mu.Lock()
	c.params, s.opened = p, true
	s.mu.Unlock()
}

// leave removes connection c and its tasks (by allegiance) from the session. The session
// ends with its last connection. The reader of c calls it, once.
func (s *session) leave(c *conn) {
	if s.shared {
		s.order.Lock() // no PDU of c is delivered any more
		defer s.order.Unlock()
	}
	s.mu.Lock()
	s.conns = slices.DeleteFunc(s.conns, func(other *conn) bool { return other == c })
	for _, t := range s.tasks {
		if t.conn != c {
			continue
		}
		if t.state == taskWithReader {
			t.aborted = true
			s.free(t) // this is the reader
			continue
		}
		if s.abort(t) {
			s.detach(t)
		}
	}
	s.forgetEarly(c)
	s.noteQuiet()
	s.closed = len(s.conns) == 0
	if s.closed {
		s.retire(s.idle)
		s.abandonClaims()
	}
	last := s.closed && s.executing == 0
	closed := s.closed
	s.mu.Unlock()
	if last {
		s.detachNexus()
	}
	s.srv.left()
	if closed {
		s.srv.remove(s)
		close(s.gone)
	}
	close(c.left)
}

// detachNexus detaches the nexus. It is called once, after the last connection and the
// last task have ended.
func (s *session) detachNexus() {
	if s.nexus != nil {
		s.device.Detach(s.nexus)
	}
}

// disconnect closes the session's connections. Their readers end the session.
func (s *session) disconnect() {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
}
