package standby

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/localsocket"
	"odx/owner"
)

// served is a server that owns the store in dir.
func served(t *testing.T, dir string) (*Server, *owner.Owner) {
	t.Helper()
	claim, err := owner.Claim(t.Context(), owner.Directory(dir))
	must.Succeed(t, err)
	t.Cleanup(func() { claim.Release() })
	s, err := Serve(dir)
	must.Succeed(t, err)
	t.Cleanup(func() { s.Close() })
	return s, claim
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// waiting is a standby.
type waiting struct {
	log    logs.Text
	result chan result
}

type result struct {
	claim *owner.Owner
	held  *Held
	err   error
}

func wait(ctx context.Context, dir string) *waiting {
	w := &waiting{result: make(chan result, 1)}
	go func() {
		claim, held, err := Wait(ctx, dir, w.log.Entry())
		w.result <- result{claim, held, err}
	}()
	return w
}

// until waits for a condition that another goroutine makes true.
func until(t *testing.T, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

// TestWait: a standby holds the sockets of the owner, those too that it gets later. When the
// owner ends, a connection that came before, between and after is accepted by the standby.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	s, claim := served(t, dir)
	first, later := listen(t), listen(t)
	must.Succeed(t, s.Offer("tcp", "first:1", first))
	w := wait(t.Context(), dir)
	until(t, "attached", func() bool { return s.Attached() == 1 })
	must.Succeed(t, s.Offer("tcp", "later:1", later))
	until(t, "held", func() bool { return strings.Contains(w.log.String(), "later:1") })

	var clients []net.Conn
	dial := func() {
		t.Helper()
		for _, l := range []net.Listener{first, later} {
			c, err := net.Dial("tcp", l.Addr().String())
			must.Succeed(t, err)
			t.Cleanup(func() { c.Close() })
			clients = append(clients, c)
		}
	}
	dial()
	must.Succeed(t, s.Close(), first.Close(), later.Close())
	dial()
	must.Succeed(t, claim.Release())
	r := <-w.result
	must.Succeed(t, r.err)
	defer r.claim.Release()
	dial()
	if got := r.held.Addresses(); strings.Join(got, " ") != "first:1 later:1" {
		t.Errorf("held: %v", got)
	}
	for _, address := range []string{"first:1", "later:1"} {
		l, err := r.held.Listen(t.Context(), "tcp", address)
		must.Succeed(t, err)
		defer l.Close()
		for range 3 {
			c, err := l.Accept()
			must.Succeed(t, err)
			if _, err := io.WriteString(c, address); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	for i, c := range clients {
		got, err := io.ReadAll(c)
		if want := []string{"first:1", "later:1"}[i%2]; err != nil || string(got) != want {
			t.Errorf("connection %d: %q, %v, want %q", i, got, err, want)
		}
	}
	other, err := r.held.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	must.Succeed(t, other.Close(), r.held.Close())
}

// TestWait_Ends: a standby that is not needed any more leaves; one more than there may be,
// and a store without an owner, are no obstacle.
func TestWait_Ends(t *testing.T) {
	dir := t.TempDir()
	s, _ := served(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var all []*waiting
	for range maxAttached + 1 {
		all = append(all, wait(ctx, dir))
	}
	until(t, "attached", func() bool { return s.Attached() == maxAttached })
	cancel()
	for _, w := range all {
		if r := <-w.result; r.err == nil {
			t.Error("no error after the end")
		}
	}
	until(t, "left", func() bool { return s.Attached() == 0 })

	claim, held, err := Wait(t.Context(), t.TempDir(), logs.Discard())
	must.Succeed(t, err)
	must.Succeed(t, claim.Release(), held.Close())
	if _, _, err := Wait(t.Context(), dir+"/none", logs.Discard()); err == nil {
		t.Error("waits in a directory that is not there")
	}
}

// TestReceive: what is no packet with one socket is refused, and leaves no descriptor open.
func TestReceive(t *testing.T) {
	good := `{"version":1,"network":"tcp","address":"a:1"}`
	for name, tt := range map[string]struct {
		data    string
		sockets int
		want    string
	}{
		"a socket":        {good, 1, ""},
		"no socket":       {good, 0, "without a socket"},
		"two sockets":     {good, 2, "2 descriptors"},
		"too many":        {good, 9, "flags"},
		"no address":      {`{"version":1,"network":"tcp"}`, 1, "without an address"},
		"another version": {`{"version":2,"network":"tcp","address":"a:1"}`, 1, "version 2"},
		"no JSON":         {`hello`, 1, "invalid"},
		"too long":        {good + strings.Repeat(" ", localsocket.MaxPacket), 1, "flags"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := localsocket.Listen("unixpacket", dir, socketName)
			must.Succeed(t, err)
			defer l.Close()
			socket, err := listen(t).(*net.TCPListener).File()
			must.Succeed(t, err)
			defer socket.Close()
			client, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: l.Addr().String(), Net: "unixpacket"})
			must.Succeed(t, err)
			defer client.Close()
			server, err := l.AcceptUnix()
			must.Succeed(t, err)
			defer server.Close()
			var rights []byte
			if tt.sockets > 0 {
				fds := make([]int, tt.sockets)
				for i := range fds {
					fds[i] = int(socket.Fd())
				}
				rights = unix.UnixRights(fds...)
			}
			_, _, err = server.WriteMsgUnix([]byte(tt.data), rights, nil)
			must.Succeed(t, err)
			n, got, err := receive(client)
			switch {
			case tt.want == "" && (err != nil || *n != (struct{ network, address string }{"tcp", "a:1"})):
				t.Errorf("%v, %v", n, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
			if got != nil {
				got.Close()
			}
		})
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte(`{"version":1,"network":"tcp","address":"127.0.0.1:3260"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parsePacket(data); err == nil && (p.Version != version || p.Network == "" || p.Address == "") {
			t.Errorf("%+v of %q", p, data)
		}
	})
}
