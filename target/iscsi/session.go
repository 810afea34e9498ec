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

// maxImmediate is how many immediate commands, which the CmdSN window does not
// bound, a session may have outstanding.
const maxImmediate = 32

// session is an I_T nexus, or a discovery session. What is negotiated and
// numbered once for all of its connections, and its tasks, are here.
type session struct {
	srv    *Server
	target *target // nil in a discovery session
	kind   sessionType
	id     scsi.NexusID
	tsih   uint16
	origin netip.Prefix // of its first connection
	user   string       // that its initiator has proved to be by CHAP; empty for none
	proof  string       // of the login that the nexus came about by (scsi.Rights)
	nexus  *scsi.Nexus
	view   scsi.View
	params params
	// shared: there may be several connections at a time. order then stands
	// before every other lock: see connections.go.
	shared bool
	order  sync.Mutex
	// barriers are waits for commands that have not arrived; guarded by order.
	barriers []barrier
	since    time.Time
	log      *logrus.Entry

	// exp and limit are ExpCmdSN and MaxCmdSN (RFC 7143 4.2.2.1). limit grows
	// by one when a command's place in the window is free again. Both change
	// under mu only.
	exp, limit atomic.Uint32
	// cost is how long commands lately took, in nanoseconds, by operation code.
	cost [256]atomic.Int32
	// share is what the initiator holds of the server's memory.
	share *share
	// earlyWaiting is set while early is not empty.
	earlyWaiting atomic.Bool
	// gone is closed when the session has left the server.
	gone chan struct{}

	mu      sync.Mutex // guards what follows
	conns   []*conn    // in the order of their logins
	tasks   map[uint32]*task
	ready   []*task
	waiting []*task // Data-Out waits for memory, first come first served
	// claimIn and claimOut are waits for memory: for the Data-In of the first
	// command that is ready, and the Data-Out of the first one that waits.
	claimIn, claimOut *claim
	// early are PDUs whose CmdSN is ahead of ExpCmdSN, by CmdSN.
	early      map[uint32]*earlyPDU
	earlyBytes int // charged to the unsolicited part of the budget
	immediate  int // immediate commands outstanding
	crew
	executing int // what the nexus must outlive: tasks in Execute, task management
	detached  int
	open      bool // connections may join
	draining  bool // no new commands: the server shuts down
	closed    bool // no connection is left
}

// window returns ExpCmdSN and MaxCmdSN for a PDU that goes out now.
func (s *session) window() (exp, limit uint32) { return s.exp.Load(), s.limit.Load() }

// begin makes t one of the session's tasks. It returns a Reject reason when
// that cannot be.
func (s *session) begin(t *task) (rejectReason byte) {
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

// refuses reports whether commands are answered BUSY: the server shuts down, or
// too many commands hang in the store.
func (s *session) refuses() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining || s.detached >= s.srv.opts.QueueDepth
}

// end takes t out of the session: its tag and its place in the window are free.
// Its memory is not: see free. mu is held.
func (s *session) end(t *task) {
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
}

// free ends t, which has no response but TASK ABORTED, and gives back its memory. mu
// is held.
func (s *session) free(t *task) {
	t.tellAbort()
	s.end(t)
	t.sent()
}

func remove(tasks []*task, t *task) []*task {
	if i := slices.Index(tasks, t); i >= 0 {
		return slices.Delete(tasks, i, i+1)
	}
	return tasks
}

// complete ends t with a response. mu is held.
func (s *session) complete(t *task) {
	if n := t.dataInCharge(len(t.st.DataIn())); n != t.chargeIn.n {
		t.chargeIn = s.srv.budget.resize(s.share, t.chargeIn, n)
	}
	s.end(t)
	t.queueResponse()
}

// abort ends t without a response, at once or, if it is running or with the
// reader, as soon as they let go of it. It reports whether the DeviceServer
// still has it. mu is held.
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

// execute runs the command and notes how long commands of its kind take.
func (t *task) execute() {
	cost, start := &t.sess.cost[t.st.OpCode], time.Now()
	t.sess.target.DeviceServer.Execute(&t.ctx, t.st)
	noteCost(cost, time.Since(start))
}

// noteCost keeps an average that follows the last eight or so commands.
func noteCost(cost *atomic.Int32, took time.Duration) {
	took = min(took, time.Second)
	old := cost.Load()
	if old == 0 {
		cost.Store(max(int32(took), 1))
		return
	}
	cost.Store(max(old+(int32(took)-old)/8, 1))
}

// finish ends a command that ran. It reports whether the command was detached:
// then another worker has taken this one's place.
func (s *session) finish(t *task) (replaced bool) {
	s.mu.Lock()
	s.executing--
	t.announceEnd()
	replaced = t.detached
	switch {
	case t.detached:
		s.detached--
		s.free(t)
	case t.aborted:
		s.free(t)
	case t.st.More():
		s.goOn(t)
	default:
		s.complete(t)
	}
	last := s.closed && s.executing == 0
	s.mu.Unlock()
	if last {
		s.detachNexus()
	}
	return replaced
}

// announceEnd tells task management that waits for t that it need not wait any
// more. mu is held.
func (t *task) announceEnd() {
	if t.ended != nil {
		close(t.ended)
		t.ended = nil
	}
}

// detach gives up a running, aborted task: its tag, its place in the window and
// its worker are free; it keeps its buffers until Execute returns. mu is held.
func (s *session) detach(t *task) {
	t.detached = true
	t.st.Leave() // nothing of what it still does counts
	t.announceEnd()
	s.detached++
	t.tellAbort()
	s.end(t)
	if t.onWorker {
		s.running--
		s.hire()
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
	last := s.closed && s.executing == 0
	s.mu.Unlock()
	if last {
		s.detachNexus()
	}
}

// begun says that the nexus is attached: connections may join.
func (s *session) begun() {
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
}

// leave takes connection c, and the tasks that it has allegiance of, out of the
// session. The session ends with its last connection. The reader of c calls it,
// once.
func (s *session) leave(c *conn) {
	if s.shared {
		s.order.Lock() // nobody delivers a PDU of c any more
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
			s.free(t) // the reader is here
			continue
		}
		if s.abort(t) {
			s.detach(t)
		}
	}
	s.forgetEarly(c)
	s.closed = len(s.conns) == 0
	if s.closed {
		s.dismiss(s.idle)
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

// detachNexus tells the device server that the nexus is lost. It is called
// once: by whoever ends the last thing that the nexus had to outlive.
func (s *session) detachNexus() {
	if s.nexus != nil {
		s.target.DeviceServer.Detach(s.nexus)
	}
}

// disconnect closes the session's connections; their readers do the rest.
func (s *session) disconnect() {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
}
