package iscsi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testTarget    = "iqn.2026-11.example.odx:test"
	testInitiator = "iqn.2026-11.example.odx:initiator"
	// patience bounds the wait of a test for an event.
	patience = 10 * time.Second
)

// bench is a server with one target over a memDisk.
type bench struct {
	tb   testing.TB
	srv  *Server
	disk *memDisk
	addr string
	// configured is what the server has, for reconfigure.
	configured Reconfiguration
}

// dribble is a connection with short reads and writes of 1 to n bytes, which occur on
// networks but not on local sockets.
type dribble struct {
	net.Conn
	mu  sync.Mutex
	rng *rand.Rand
	n   int
}

func (d *dribble) some(b []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b[:min(len(b), 1+d.rng.IntN(d.n))]
}

func (d *dribble) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return d.Conn.Read(d.some(b))
}

func (d *dribble) CloseWrite() error { return d.Conn.(*net.TCPConn).CloseWrite() }

func (d *dribble) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		part := d.some(b)
		k, err := d.Conn.Write(part)
		n += k
		if err != nil {
			return n, err
		}
		b = b[k:]
	}
	return n, nil
}

type dribbleListener struct {
	net.Listener
	n int
}

func (l dribbleListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &dribble{Conn: c, rng: rand.New(rand.NewPCG(1, 2)), n: l.n}, nil
}

// newBench serves until the test ends. wrap may replace the listener.
func newBench(tb testing.TB, change func(*Options), wrap func(net.Listener) net.Listener) *bench {
	tb.Helper()
	o := DefaultOptions()
	o.LogoutTimeout = 300 * time.Millisecond
	o.AbortTimeout = 250 * time.Millisecond
	if change != nil {
		change(&o)
	}
	b := &bench{tb: tb, disk: newMemDisk(4 << 20)}
	b.configured = Reconfiguration{Options: o, Targets: []TargetConfig{
		{Name: testTarget, Alias: "test", DeviceServer: b.disk},
		{Name: testTarget + "2", DeviceServer: newMemDisk(1 << 20)},
	}}
	srv, err := NewServer(o, b.configured.Targets)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b.srv, b.addr = srv, l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), Portal{Listener: l, Group: 7}) }()
	eventually(tb, "the portal is served", func() bool { return len(srv.conf.Load().portals) > 0 })
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, ErrClosed) {
			tb.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			tb.Errorf("Serve returned %v", err)
		}
		if n := b.disk.nexuses(); n != 0 {
			tb.Errorf("%d nexuses are still attached", n)
		}
		if n := srv.budget.heldBytes(); n != 0 {
			tb.Errorf("%d bytes of memory are still held", n)
		}
	})
	return b
}

// socketFull waits until a peer that receives nothing has filled its socket: its reader waits
// for it, or has no more commands.
func (b *bench) socketFull() {
	b.tb.Helper()
	eventually(b.tb, "the socket is full", func() bool {
		return b.srv.BufferedBytes() > 16<<20 || slices.ContainsFunc(b.srv.appendConns(nil), func(c *conn) bool { return c.notReading.Load() })
	})
}

// portal returns the portal.
func (b *bench) portal() Portal { return b.srv.conf.Load().portals[0] }

// overTransports runs a test over a normal connection and over one with short reads and
// writes.
func overTransports(t *testing.T, change func(*Options), test func(t *testing.T, b *bench)) {
	for _, n := range []int{0, 13, 701} {
		name, wrap := "plain", func(l net.Listener) net.Listener { return l }
		if n > 0 {
			name = fmt.Sprintf("1 to %d bytes", n)
			wrap = func(l net.Listener) net.Listener { return dribbleListener{l, n} }
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, change, wrap))
		})
	}
}

// eventually waits for a condition of another goroutine.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-deadline.C:
			tb.Fatalf("%s: did not happen", what)
		}
	}
}
