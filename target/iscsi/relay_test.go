package iscsi

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"odx/internal/kit/logs"
	"odx/target/handover"
)

// relay is a bench whose server can be replaced by another one.
type relay struct {
	*bench
	options  Options
	targets  []TargetConfig
	listener net.Listener
	served   chan error
}

// newRelay serves until the test ends.
func newRelay(t *testing.T, change func(*Options)) *relay {
	t.Helper()
	r := &relay{bench: &bench{tb: t, disk: newMemDisk(4 << 20)}, options: DefaultOptions()}
	r.options.LogoutTimeout, r.options.AbortTimeout = 300*time.Millisecond, 250*time.Millisecond
	log := &logs.Text{}
	r.options.Log = log.Entry()
	if change != nil {
		change(&r.options)
	}
	r.targets = []TargetConfig{{Name: testTarget, DeviceServer: r.disk}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.listener, r.addr = l, l.Addr().String()
	r.start()
	r.serve()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-r.served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
		r.nothingHeld()
		if n := r.disk.nexuses(); n != 0 {
			t.Errorf("%d nexuses are still attached", n)
		}
	})
	return r
}

// start makes a server that does not serve yet.
func (r *relay) start() {
	r.tb.Helper()
	srv, err := NewServer(r.options, r.targets)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.srv = srv
}

func (r *relay) serve() {
	r.served = make(chan error, 1)
	srv, served := r.srv, r.served
	go func() { served <- srv.Serve(context.Background(), Portal{Listener: r.listener, Group: 7}) }()
}

func (r *relay) nothingHeld() {
	r.tb.Helper()
	if n := r.srv.budget.heldBytes(); n != 0 {
		r.tb.Errorf("%d bytes of memory are still held", n)
	}
}

// grace is the time that commands have in a handover, unless a test is about it.
const grace = 250 * time.Millisecond

// suspend suspends the server, and returns what another process would get.
func (r *relay) suspend(grace time.Duration) *Suspended {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	s, err := r.srv.Suspend(ctx)
	if err != nil {
		r.tb.Fatalf("Suspend: %v", err)
	}
	if err := <-r.served; !errors.Is(err, ErrSuspended) {
		r.tb.Errorf("Serve returned %v, want ErrSuspended", err)
	}
	r.nothingHeld()
	return r.pass(s)
}

// pass returns s as it arrives in another process.
func (r *relay) pass(s *Suspended) *Suspended {
	r.tb.Helper()
	data, err := s.State.Encode()
	if err != nil {
		r.tb.Fatal(err)
	}
	got := &Suspended{}
	if got.State, err = handover.Decode(data); err != nil {
		r.tb.Fatal(err)
	}
	for _, nc := range s.Conns {
		got.Conns = append(got.Conns, duplicate(r.tb, nc))
	}
	if err := s.Close(); err != nil {
		r.tb.Error(err)
	}
	return got
}

// duplicate returns a connection by its descriptor.
func duplicate(tb testing.TB, nc net.Conn) net.Conn {
	tb.Helper()
	f, err := nc.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	dup, err := net.FileConn(f)
	if err != nil {
		tb.Fatal(err)
	}
	return dup
}

// resume serves with another server, which continues the sessions of s, and returns how
// many connections it closed.
func (r *relay) resume(s *Suspended) (closed int) {
	r.tb.Helper()
	r.start()
	closed = r.srv.Resume(s)
	r.serve()
	return closed
}

// handOver replaces the server, and checks how many connections continue.
func (r *relay) handOver(grace time.Duration, connections int) {
	r.tb.Helper()
	s := r.suspend(grace)
	if len(s.Conns) != connections {
		r.tb.Errorf("%d connections are suspended, want %d", len(s.Conns), connections)
	}
	if n := r.resume(s); n != 0 {
		r.tb.Errorf("%d connections were closed", n)
	}
}

// beginHandOver is handOver in the background. It returns once readers know of it; the
// caller calls the result to wait for the end.
func (r *relay) beginHandOver(grace time.Duration, connections int) (wait func()) {
	r.tb.Helper()
	done := make(chan struct{})
	before := r.srv
	go func() {
		defer close(done)
		r.handOver(grace, connections)
	}()
	eventually(r.tb, "readers drain", func() bool {
		for _, c := range before.appendConns(nil) {
			if c.fullFeature.Load() && c.suspended.by.Load() == nil {
				return false
			}
		}
		return before.isSuspended()
	})
	return func() { <-done }
}
