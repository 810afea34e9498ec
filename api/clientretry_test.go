package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"odx/admin"
)

// goneServer accepts one connection on the socket in dir, closes it without an answer, and
// removes the socket, as a server does that ends.
func goneServer(t *testing.T, dir string) (gone chan struct{}) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, socketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	gone = make(chan struct{})
	go func() {
		defer close(gone)
		c, err := l.Accept()
		l.Close()
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}()
	return gone
}

// TestClient_Retry: a request that changes nothing is sent again to the process that takes
// the place of one that has not answered; another request is not.
func TestClient_Retry(t *testing.T) {
	dir := t.TempDir()
	client := NewClient(dir)
	defer client.Close()
	gone := goneServer(t, dir)
	if _, err := client.CreateVolume(t.Context(), "v", 1<<20); !errors.Is(err, ErrNoAnswer) || errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("a change: %v", err)
	}
	<-gone
	gone = goneServer(t, dir)
	answered := make(chan error, 1)
	go func() {
		_, err := client.Config(t.Context())
		answered <- err
	}()
	<-gone
	s := serving(t, nil)
	s.Live = newModelLive(t, s.Audit)
	serveSocket(t, dir, NewServer(s))
	if err := <-answered; err != nil {
		t.Errorf("a query: %v", err)
	}
}

// TestClient_Retry_gone: the error is that of the answer that is missing, not that no
// server is there.
func TestClient_Retry_gone(t *testing.T) {
	dir := t.TempDir()
	client := NewClient(dir)
	defer client.Close()
	goneServer(t, dir)
	if _, err := client.Config(t.Context()); !errors.Is(err, ErrNoAnswer) || errors.Is(err, admin.ErrNotRunning) {
		t.Error(err)
	}
}

// TestConnectionEnded: a connection ends in several ways, of which the kernel picks one.
func TestConnectionEnded(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{io.EOF, true},
		{fmt.Errorf("decode: %w", io.ErrUnexpectedEOF), true},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, true},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, true},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, false},
		{&json.SyntaxError{}, false},
		{admin.ErrNotRunning, false},
	} {
		if got := connectionEnded(tt.err); got != tt.want {
			t.Errorf("%v: %t, want %t", tt.err, got, tt.want)
		}
	}
}
