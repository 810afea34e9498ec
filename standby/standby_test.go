package standby

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
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
	held   chan string // a line of the log for each socket that it holds
	result chan result
}

type result struct {
	claim *owner.Owner
	held  *Held
	err   error
}

// Write receives lines of the log.
func (w *waiting) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("standby holds")) {
		w.held <- string(line)
	}
	return len(line), nil
}

func wait(ctx context.Context, dir string) *waiting {
	w := &waiting{held: make(chan string, maxHeld), result: make(chan result, 1)}
	log := logrus.New()
	log.SetOutput(w)
	go func() {
		claim, held, err := Wait(ctx, dir, logrus.NewEntry(log))
		w.result <- result{claim, held, err}
	}()
	return w
}

// TestWait: a standby holds the sockets of the owner, those too that it gets later. When the
// owner ends, a connection that came before, between and after is accepted by the standby.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	s, claim := served(t, dir)
	first, later := listen(t), listen(t)
	must.Succeed(t, s.Offer("tcp", "first:1", first))
	w := wait(t.Context(), dir)
	<-w.held
	must.Succeed(t, s.Offer("tcp", "later:1", later))
	if line := <-w.held; !strings.Contains(line, "later:1") || s.Attached() != 1 {
		t.Errorf("%d standbys; %s", s.Attached(), line)
	}

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

// TestWait_Ends: a standby that is not needed any more leaves, which makes room for one more
// than there may be; a store without an owner is taken at once.
func TestWait_Ends(t *testing.T) {
	dir := t.TempDir()
	s, _ := served(t, dir)
	must.Succeed(t, s.Offer("tcp", "a:1", listen(t)))
	ctx, cancel := context.WithCancel(t.Context())
	var all []*waiting
	for range maxAttached {
		w := wait(ctx, dir)
		<-w.held
		all = append(all, w)
	}
	late, end := context.WithCancel(t.Context())
	one := wait(late, dir)
	cancel()
	for _, w := range all {
		if r := <-w.result; r.err == nil {
			t.Error("no error after the end")
		}
	}
	<-one.held
	end()
	if r := <-one.result; r.err == nil {
		t.Error("no error after the end")
	}

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

// TestWait_Reattaches: a standby is soon attached again to a server that takes the place of
// another one, as after a handover.
func TestWait_Reattaches(t *testing.T) {
	dir := t.TempDir()
	l := listen(t)
	s, _ := served(t, dir)
	must.Succeed(t, s.Offer("tcp", "a:1", l))
	ctx, end := context.WithCancel(t.Context())
	w := wait(ctx, dir)
	<-w.held
	began := time.Now()
	for range 4 {
		must.Succeed(t, s.Close())
		var err error
		s, err = Serve(dir)
		must.Succeed(t, err, s.Offer("tcp", "a:1", l))
		<-w.held
	}
	if took := time.Since(began); took > 2*retryEvery {
		t.Errorf("it took %v to attach again 4 times", took)
	}
	end()
	<-w.result
	must.Succeed(t, s.Close())
}
