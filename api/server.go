package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/audit"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/httpstop"
	"odx/quota"
	"odx/replica"
)

// Server serves the API of one open store.
type Server struct {
	http  http.Server
	admin admin.Administrator
	live  admin.Live
	// snapshots returns the policies of snapshots; nil where there are none.
	snapshots func() (admin.SnapshotPolicies, error)
	audit     *audit.Log
	log       *logrus.Entry
	memory    *quota.Quota  // of requests: their bodies and answers
	serving   chan struct{} // closed when Serve has ended
	refused   *rate.Limiter // of lines about requests that their callers may not send
	streams   replica.Streamer
	// replicas is nil where there are none.
	replicas Replicas
	// streaming is how many streams are sent and received.
	streaming atomic.Int64

	connections httpstop.Connections

	// stopping ends long requests; stop ends it.
	stopping context.Context
	stop     context.CancelFunc

	mu     sync.Mutex     // guards closed, and calls from growing with it
	closed bool           // no further request is handled
	calls  sync.WaitGroup // requests being handled
}

// Serving is what a Server serves, all of it open until Shutdown has returned.
type Serving struct {
	// Administrator is what requests call.
	Administrator admin.Administrator
	// Streams is what requests to send and receive streams call; nil where there are none.
	Streams replica.Streamer
	// Live is what those requests call that change the running server; nil where its
	// configuration does not change.
	Live admin.Live
	// Replicas are those of the store; nil where it is only read.
	Replicas Replicas
	// Snapshots returns the policies by which snapshots are taken, or why there are none; nil
	// where there never are.
	Snapshots func() (admin.SnapshotPolicies, error)
	// Audit records what they change.
	Audit *audit.Log
	// Handlers are served in addition to /v1.
	Handlers []Mounted
	// Page returns the page that a guarded server serves at PagePath; nil for none. It
	// identifies its callers itself.
	Page func(*Guard) http.Handler
	// Log has what goes wrong.
	Log *logrus.Entry
}

// Mounted is a handler that is not of /v1, such as that of metrics. It is called within the
// bounds of connections and of the time for headers, but not within those of memory, and its
// answer may take any time: Shutdown waits for it until its context ends, and
// then cancels it.
type Mounted struct {
	// Pattern is one of http.ServeMux.
	Pattern string
	// Role is what its caller needs.
	Role    conf.Role
	Handler http.Handler
}

// NewServer returns a server for the Unix socket: its clients are identified by their users.
func NewServer(s Serving) *Server { return newServer(s, newSocketGate()) }

// NewGuardedServer returns a server for listeners on a network: each request has to have
// a secret of the guard.
func NewGuardedServer(s Serving, g *Guard) *Server {
	server := newServer(s, newBearerGate(g, s.Log))
	if s.Page != nil {
		server.http.Handler = server.withPage(s.Page(g), server.http.Handler)
	}
	return server
}

func newServer(serving Serving, g gate) *Server {
	s := &Server{
		admin: serving.Administrator, live: serving.Live, snapshots: serving.Snapshots, audit: serving.Audit, log: serving.Log, streams: serving.Streams, replicas: serving.Replicas,
		memory: quota.New(defaultMemory), serving: make(chan struct{}), refused: rate.NewLimiter(1, failureBurst),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	for _, r := range allRoutes() {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) { s.handle(&r, w, req) })
	}
	for _, m := range serving.Handlers {
		mux.HandleFunc(m.Pattern, func(w http.ResponseWriter, req *http.Request) { s.handleMounted(&m, w, req) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) { s.handle(&noRoute, w, req) })
	s.http = http.Server{
		Handler:           behind(g, s.asWritten(mux)),
		ConnContext:       withConnection,
		ConnState:         s.connections.Track,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	return s
}

// asWritten passes the requests on whose path is canonical. ServeMux redirects the others,
// and a client that follows that would, for a user named "..", remove the target.
func (s *Server) asWritten(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.EscapedPath(); strings.TrimSuffix(p, "/") != strings.TrimSuffix(path.Clean("/"+p), "/") {
			s.handle(&noRoute, w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves l until Shutdown. It is called once.
func (s *Server) Serve(l net.Listener) {
	defer close(s.serving)
	if err := s.http.Serve(limited(l)); !errors.Is(err, http.ErrServerClosed) {
		s.log.WithError(err).Error("API stopped; iSCSI service continues")
	}
}

// Shutdown closes the listener, ends long requests, lets the others finish until
// ctx ends, and waits for all of them and for Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.connections.Shutdown(ctx, &s.http)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.serving
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	return err
}

// startCall counts a request; false after Shutdown.
func (s *Server) startCall() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// call is a request that is being handled.
type call struct {
	ctx        context.Context
	admin      admin.Administrator
	live       admin.Live
	replicas   Replicas
	snapshots  func() (admin.SnapshotPolicies, error)
	request    *http.Request
	maxBody    int64 // of parameters, in bytes
	parameters []byte
	held       reservation
	writer     http.ResponseWriter
	// changed is what the line of the audit log has: its subject, and the states that
	// are known; see subject. changedBytes is how much data changed.
	changed      audit.Change
	changedBytes int64
	// streaming: the response has begun, as lines of JSON. sent: all of it was sent.
	streaming, sent bool
	streams         replica.Streamer
}

// handle executes a request and writes the response.
func (s *Server) handle(r *route, w http.ResponseWriter, req *http.Request) {
	if !s.startCall() {
		return // the connection is closed
	}
	defer s.calls.Done()
	c := &call{ctx: req.Context(), admin: s.admin, live: s.live, snapshots: s.snapshots, streams: s.streams, replicas: s.replicas, request: req, maxBody: r.load.body, writer: w}
	defer c.held.release()
	result, err := s.execute(r, c)
	s.record(r, c, result, err)
	switch {
	case c.sent:
	case err != nil:
		s.fail(c, err)
	case c.streaming:
		c.writeLine(v1.Line[any, any]{Result: &result})
	case result == nil:
		w.WriteHeader(r.status)
	default:
		c.deadline((*http.ResponseController).SetWriteDeadline)
		respond(w, r.status, result)
	}
}

// handleMounted passes a request on, if its caller may.
func (s *Server) handleMounted(m *Mounted, w http.ResponseWriter, req *http.Request) {
	if !s.startCall() {
		return // the connection is closed
	}
	defer s.calls.Done()
	if err := s.allow(req, roleOf(m.Role)); err != nil {
		f, status := failureOf(err)
		respond(w, status, f)
		return
	}
	m.Handler.ServeHTTP(w, req)
}

// execute reads the request and calls the route.
func (s *Server) execute(r *route, c *call) (result any, err error) {
	if err := s.allow(c.request, r.needs(c.request)); err != nil {
		return nil, err
	}
	if r.load.stream {
		end, err := s.reserveStream(c)
		if err != nil {
			return nil, err
		}
		defer end()
	} else if err := s.takeBody(r, c); err != nil {
		return nil, err
	}
	if r.load.long {
		c.held.release() // for shorter requests; there are at most maxConnections long ones
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		defer context.AfterFunc(s.stopping, cancel)()
		c.ctx = ctx
	}
	result, err = r.do(c)
	if all, ok := result.(list); ok {
		c.held.shrink(all.bytes())
	}
	return result, err
}

// takeBody reads the body, once there is memory for the request.
func (s *Server) takeBody(r *route, c *call) error {
	if err := c.checkLength(); err != nil {
		return err
	}
	if err := s.reserve(r, c); err != nil {
		return err
	}
	return c.readBody()
}

// fail writes the response for an error.
func (s *Server) fail(c *call, err error) {
	f, status := failureOf(err)
	if errors.Is(err, conf.ErrChanged) && c.request.Header.Get("If-Match") != "" {
		status = http.StatusPreconditionFailed
	}
	if f.Kind == internalKind {
		s.log.WithError(err).WithField("request", c.request.Method+" "+c.request.URL.Path).Warn("API request failed")
	}
	if c.streaming {
		c.writeLine(f)
	} else {
		respond(c.writer, status, f)
	}
}

// decode decodes the parameters into the struct that p points to.
func (c *call) decode(p any) error {
	d := json.NewDecoder(bytes.NewReader(c.parameters))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return fmt.Errorf("%w: parameters: %w", blockdev.ErrInvalid, err)
	}
	if d.More() {
		return fmt.Errorf("%w: parameters: more than one value", blockdev.ErrInvalid)
	}
	return nil
}

// reportProgress writes a line with the progress.
func (c *call) reportProgress(progress any) {
	if !c.streaming {
		c.streaming = true
		c.writer.Header().Set("Content-Type", "application/x-ndjson")
	}
	c.writeLine(v1.Line[any, any]{Progress: &progress})
}

// writeLine writes a line. It fails only if the client has disconnected, which ends the
// request's context.
func (c *call) writeLine(v any) {
	if json.NewEncoder(c.writer).Encode(v) == nil {
		_ = http.NewResponseController(c.writer).Flush()
	}
}

func respond(w http.ResponseWriter, status int, body any) {
	switch body := body.(type) {
	case []byte:
		respondText(w, status, document{"application/octet-stream", body})
		return
	case document:
		respondText(w, status, body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if all, ok := body.(list); ok {
		_ = all.encode(w)
		return
	}
	// This fails only if the client has disconnected.
	_ = json.NewEncoder(w).Encode(body)
}

func respondText(w http.ResponseWriter, status int, d document) {
	w.Header().Set("Content-Type", d.contentType)
	w.WriteHeader(status)
	_, _ = w.Write(d.text)
}
