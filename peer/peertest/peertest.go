// Package peertest is for tests: servers with stores in memory that are peers of each other.
// They speak over TCP within the process, so that what crosses the wire is real; a server can
// be killed, restarted on what its disk has, and cut off from the others.
package peertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"odx/audit"
	"odx/backstore"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/peer"
	"odx/tokens"
)

// Options are what servers of a test can differ in. The zero value is valid.
type Options struct {
	Limits    peer.Limits
	Policy    tokens.Policy
	Tokens    tokens.Limits
	DedupUnit int
	// Configure, if set, changes the options of the store of a server before it is opened.
	Configure func(name string, o *backstore.Options)
}

// Server is a server of a test. Its exported fields are replaced by Kill and Start.
type Server struct {
	Name   string
	Store  *backstore.Store
	Tokens *tokens.Manager
	Keeper *peer.Keeper
	// Peers are the others that it knows, Remote is what resolves their tokens.
	Peers  *peer.Directory
	Remote *peer.Tokens

	t       testing.TB
	o       Options
	fs      *vfs.Mem
	l       net.Listener
	http    *http.Server
	serving sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	off     bool       // cut off: connections stall
	link    Link
	step    func()
	instead func(w http.ResponseWriter, r *http.Request) bool
	free    time.Time // when the link has carried what it has taken
	clients map[net.Conn]bool
}

// New starts a server with an empty store. The test ends it.
func New(t testing.TB, name string, o Options) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	s := &Server{Name: name, t: t, o: o, fs: vfs.NewMem(), l: l, Peers: &peer.Directory{}, clients: map[net.Conn]bool{}}
	s.Start()
	t.Cleanup(func() {
		s.Stop()
		s.Peers.Close()
		_ = l.Close()
	})
	return s
}

// Start starts a server that Stop or Kill has ended.
func (s *Server) Start() {
	s.t.Helper()
	ctx := context.Background()
	var err error
	o := backstore.Options{Dir: "/store", Log: logs.Discard(), FS: s.fs, CacheBytes: 64 << 20, DedupUnit: s.o.DedupUnit}
	if s.o.Configure != nil {
		s.o.Configure(s.Name, &o)
	}
	s.Store, err = backstore.Open(ctx, o)
	must.Succeed(s.t, err)
	s.Tokens, err = tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: s.Store}, Log: logs.Discard(), Policy: s.o.Policy, Limits: s.o.Tokens})
	must.Succeed(s.t, err)
	s.Keeper = peer.NewKeeper(peer.KeeperOptions{Store: s.Store, Tokens: s.Tokens, Limits: s.o.Limits})
	s.Remote = peer.NewTokens(s.Peers, 16<<20)
	s.Tokens.SetRemote(s.Remote)
	handler := s.Keeper.Handler()
	s.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.intercepts(w, r) {
			return
		}
		name := r.Header.Get("Authorization") // the name of the caller stands for its secret
		handler.ServeHTTP(w, r.WithContext(audit.With(r.Context(), audit.Secret(name, ""))))
	})}
	served := s.http
	l := &listener{Listener: s.l, closed: make(chan struct{})}
	s.serving.Go(func() { _ = served.Serve(l) })
}

// listener stays open when the server that uses it is closed: its address stays.
type listener struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	tcp := l.Listener.(*net.TCPListener)
	for {
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		default:
		}
		_ = tcp.SetDeadline(time.Now().Add(5 * time.Millisecond))
		c, err := tcp.Accept()
		if nerr := net.Error(nil); errors.As(err, &nerr) && nerr.Timeout() {
			continue
		}
		return c, err
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Stop stops the server as its owner would.
func (s *Server) Stop() {
	if s.http == nil {
		return
	}
	s.end()
	must.Succeed(s.t, s.Tokens.Close(), s.Store.Close())
}

// end ends what serves.
func (s *Server) end() {
	_ = s.http.Close()
	s.serving.Wait()
	s.http = nil
	s.Keeper.Close()
	s.Remote.Close()
}

// Kill ends the server with what its disk has after a power cut. No operation of the server may
// be under way. Start starts it again.
func (s *Server) Kill(rng *rand.Rand) {
	disk := s.fs.CrashClone(rng)
	s.mu.Lock()
	s.step = nil
	s.mu.Unlock()
	s.end()
	// What is left of the process goes with its disk.
	_ = errors.Join(s.Tokens.Close(), s.Store.Close())
	s.fs = disk
}

// URL returns the address of the server.
func (s *Server) URL() string { return "http://" + s.l.Addr().String() }

// Options returns how another server of that name reaches this one.
func (s *Server) Options(as string) peer.RemoteOptions {
	return peer.RemoteOptions{Name: s.Name, Store: s.Store.ID(), Addresses: []string{s.URL()}, Secret: []byte(as), Dial: s.dial}
}

// As returns this server as a peer of one with a name.
func (s *Server) As(name string) *peer.Remote {
	r := peer.NewRemote(s.Options(name))
	s.t.Cleanup(r.Close)
	return r
}

// Know makes others the peers of the server.
func (s *Server) Know(others ...*Server) {
	var list []*peer.Remote
	for _, o := range others {
		list = append(list, o.As(s.Name))
	}
	s.Peers.Replace(list)
}

// CutOff drops what is sent to the server, or stops doing so. Connections that it has met while
// it was cut off are lost.
func (s *Server) CutOff(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
	if !off {
		for c := range s.clients {
			_ = c.Close()
		}
	}
}

// Link is what connections to a server share, other than one within the process.
type Link struct {
	// Rate is how many bytes a second it carries from the server; 0: as many as it can.
	Rate int64
	// Dial and Read, if set, fail the steps for which they return an error.
	Dial, Read func() error
}

// Through has new connections to the server go through a link.
func (s *Server) Through(l Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.free = l, time.Time{}
}

// Intercept has f called with each request of a peer. It returns true if it has answered it.
func (s *Server) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = f
}

func (s *Server) intercepts(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	f := s.instead
	s.mu.Unlock()
	return f != nil && f(w, r)
}

// OnStep has f called at each step of the server: before a change of its disk, and when an
// answer of it crosses the wire. It ends with Kill.
func (s *Server) OnStep(f func()) {
	s.mu.Lock()
	s.step = f
	s.mu.Unlock()
	s.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind.Changes() {
			f()
		}
		return nil
	})
}

// carry waits until the link has carried n bytes more.
func (s *Server) carry(n int) error {
	s.mu.Lock()
	l, now, step := s.link, time.Now(), s.step
	if l.Rate > 0 {
		if s.free.Before(now) {
			s.free = now
		}
		s.free = s.free.Add(time.Duration(n) * time.Second / time.Duration(l.Rate))
	}
	free := s.free
	s.mu.Unlock()
	if step != nil {
		step()
	}
	if wait := free.Sub(now); wait > 5*time.Millisecond {
		time.Sleep(wait) // the link itself
	}
	if l.Read != nil {
		return l.Read()
	}
	return nil
}

// dial connects to the server.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.isOff() {
		<-ctx.Done() // as a SYN that is dropped
		return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
	}
	s.mu.Lock()
	fail := s.link.Dial
	s.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = true
	return &wire{c, s}, nil
}

func (s *Server) isOff() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off
}

// wire is a connection that loses everything while its server is cut off.
type wire struct {
	net.Conn
	to *Server
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if err != nil {
			return n, err
		}
		if w.to.isOff() {
			continue
		}
		if err := w.to.carry(n); err != nil {
			_ = w.Conn.Close()
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: err}
		}
		return n, nil
	}
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	if w.to.isOff() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.to.mu.Lock()
	delete(w.to.clients, w.Conn)
	w.to.mu.Unlock()
	return w.Conn.Close()
}

// Volume makes a volume with data; nil leaves it empty.
func (s *Server) Volume(name string, size int64, data []byte) *backstore.Volume {
	s.t.Helper()
	v, err := s.Store.CreateVolume(context.Background(), name, size)
	must.Succeed(s.t, err)
	if len(data) > 0 {
		must.Succeed(s.t, v.WriteAt(context.Background(), data, 0))
	}
	return v
}

// Random returns n bytes that only seed gives.
func Random(seed uint64, n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(p)
	return p
}
