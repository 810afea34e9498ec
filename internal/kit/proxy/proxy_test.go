package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo sends back what each connection sends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T, piece int) *Proxy {
	t.Helper()
	p, err := Start(echo(t), piece)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // ends a hang
	return c
}

func TestForward(t *testing.T) {
	for _, piece := range []int{0, 1, 7} {
		c := dial(t, start(t, piece)).(*net.TCPConn)
		want := bytes.Repeat([]byte("0123456789"), 2000)
		go func() {
			c.Write(want)
			c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("pieces of %d: %d bytes came back, %v; want %d", piece, len(got), err, len(want))
		}
	}
}

// TestPieces looks at what is written, since a reader may get several pieces at
// once.
func TestPieces(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		(&Proxy{piece: 3}).write(near, make([]byte, 1000))
		near.Close()
	}()
	sizes := map[int]int{}
	for b := make([]byte, 100); ; {
		n, err := far.Read(b)
		if err != nil {
			break
		}
		sizes[n] += n
	}
	if len(sizes) != 3 || sizes[1] == 0 || sizes[2] == 0 || sizes[1]+sizes[2]+sizes[3] != 1000 {
		t.Errorf("bytes by the size of their piece: %v", sizes)
	}
}

func TestCut(t *testing.T) {
	p := start(t, 0)
	c := dial(t, p)
	c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil || p.Connections() != 1 {
		t.Fatalf("before the cut: %v, %d connections", err, p.Connections())
	}
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading over a cut path: %v", err)
	}
	if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling over a cut path: %v, %v", c, err)
	}
	if err := p.Mend(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, p)
	c.Write([]byte("y"))
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != 'y' {
		t.Errorf("after mending: %q, %v", b, err)
	}
}
