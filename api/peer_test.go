package api

import (
	"bufio"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"odx/audit"
)

// TestSocketGate has what the user at the other end of the socket may do.
func TestSocketGate(t *testing.T) {
	for name, tt := range map[string]struct {
		peer peer
		role role
		want string
	}{
		"root":              {peer{0, 7, "root", true}, administers, "uid 0 (root), pid 7"},
		"the server's user": {peer{1000, 7, "odx", true}, administers, "uid 1000 (odx), pid 7"},
		"another user":      {peer{1001, 7, "", true}, reads, "uid 1001, pid 7"},
		"unknown":           {peer{}, reads, "uid 4294967295 (unknown), pid 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/status", nil)
			r = r.WithContext(withPeer(r.Context(), peerConn{peer: tt.peer}))
			c, err := socketGate{1000}.admit(r)
			if err != nil || c.role != tt.role || c.actor.String() != tt.want {
				t.Errorf("%v as %v, %v", c.actor, c.role, err)
			}
		})
	}
}

// admitted is a gate that keeps whom another one has admitted.
type admitted struct {
	gate
	callers chan caller
}

func (a admitted) admit(r *http.Request) (caller, error) {
	c, err := a.gate.admit(r)
	a.callers <- c
	return c, err
}

// TestServer_Peer: the actor is the process at the other end of the socket.
func TestServer_Peer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := admitted{newSocketGate(), make(chan caller, 2)}
	server := newServer(serving(t, s.Admin()), a)
	client := serveSocket(t, dir, server)
	if _, err := client.Volumes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := <-a.callers; c.actor.Kind != audit.Local || c.actor.UID != uint32(os.Geteuid()) || c.actor.PID != int32(os.Getpid()) || c.role != administers {
		t.Errorf("%+v", c)
	}
	t.Run("another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can become another user")
		}
		const nobody = 65534
		path := filepath.Join(dir, socketName)
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
			t.Fatal(err)
		}
		conn := dialAs(t, nobody, path)
		defer conn.Close()
		if _, err := conn.Write([]byte("DELETE /v1/volumes/none HTTP/1.1\r\nHost: odx\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if c := <-a.callers; c.actor.UID != nobody || c.role != reads || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%+v got %s", c, resp.Status)
		}
	})
}

// dialAs connects to a socket as another user, in a thread of its own: credentials of the
// kernel are those of a thread.
func dialAs(t *testing.T, uid int, path string) *os.File {
	t.Helper()
	fds := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Error(errno)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Error(err)
		}
		fds <- fd
	}()
	return os.NewFile(uintptr(<-fds), path)
}
