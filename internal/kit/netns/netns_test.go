//go:build e2e

package netns

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/harness"
)

// network returns hosts a and b.
func network(t *testing.T) (a, b *Host) {
	t.Helper()
	if err := Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	n, err := New("a", "b")
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, n.Close()) })
	return n.Host("a"), n.Host("b")
}

// echo answers what it is sent, on port 7 of a host.
func echo(t *testing.T, h *Host) {
	t.Helper()
	var l net.Listener
	harness.Must(t, h.Do(func() (err error) {
		l, err = net.Listen("tcp", "0.0.0.0:7")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// ask sends a message from a host and waits for it to come back.
func ask(t *testing.T, from *Host, address string, message string) error {
	t.Helper()
	return from.Do(func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		return exchange(c, message)
	})
}

func exchange(c net.Conn, message string) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, message)
		sent <- err
	}()
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != message {
		return errors.New("another message came back")
	}
	return <-sent
}

// TestNet: hosts reach each other, and the test them; drops are silent, a link that is down
// and up again carries packets; bytes are counted and links shaped; nothing is left.
func TestNet(t *testing.T) {
	a, b := network(t)
	echo(t, b)
	wireOfB := b.Address.String() + ":7"
	harness.Must(t, ask(t, a, wireOfB, "hello"))
	c, err := net.DialTimeout("tcp", b.Control.String()+":7", time.Second)
	harness.Must(t, err)
	defer c.Close()
	for name, fault := range map[string]struct{ on, off func() error }{
		"drop at the server": {b.Drop, b.Pass},
		"drop at the client": {a.Drop, a.Pass},
		"link down":          {b.Down, b.Up},
	} {
		harness.Must(t, fault.on())
		var timeout net.Error
		if err := ask(t, a, wireOfB, "hello"); !errors.As(err, &timeout) || !timeout.Timeout() && !strings.Contains(name, "down") {
			t.Errorf("%s: %v, want a timeout", name, err)
		}
		harness.Must(t, exchange(c, "the test is not concerned"), fault.off(), ask(t, a, wireOfB, "hello"))
	}

	const megabyte = 1 << 20
	before, _, err := a.Bytes()
	harness.Must(t, err)
	harness.Must(t, ask(t, a, wireOfB, strings.Repeat("x", megabyte)))
	after, _, err := a.Bytes()
	harness.Must(t, err)
	if n := after - before; n < megabyte || n > megabyte*11/10 {
		t.Errorf("%d bytes were sent for 1 MiB", n)
	}
	harness.Must(t, a.Rate(16e6))
	began := time.Now()
	harness.Must(t, ask(t, a, wireOfB, strings.Repeat("x", megabyte)))
	if took := time.Since(began); took < 400*time.Millisecond { // 0.52 s, less what is let through at once
		t.Errorf("1 MiB at 16 Mbit/s took %v", took)
	}
	harness.Must(t, a.Rate(0))
}

// TestSweep: what a process leaves that was killed is removed when the next network is made.
func TestSweep(t *testing.T) {
	if os.Getenv("ODX_NETNS_LEAVE") != "" {
		n, err := New("left")
		harness.Must(t, err)
		t.Log("made " + n.bridge)
		os.Stdout.WriteString("made " + n.bridge + "\n")
		proc, err := os.FindProcess(os.Getpid())
		harness.Must(t, err)
		harness.Must(t, proc.Kill())
		select {}
	}
	if err := Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSweep$")
	cmd.Env = append(os.Environ(), "ODX_NETNS_LEAVE=1")
	out, err := cmd.Output()
	_, rest, found := strings.Cut(string(out), "made ")
	name, _, _ := strings.Cut(rest, "\n")
	if err == nil || !found {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat("/var/run/netns/" + name); err != nil {
		t.Fatalf("the process left nothing: %v", err)
	}
	network(t)
	if _, err := os.Stat("/var/run/netns/" + name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
}
