package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit/must"
)

// served returns the number of the process that serves, and has it killed with the test.
func served(t *testing.T, path string) int {
	t.Helper()
	out, complaint, status := output(t, "status", "--json", "--config", path)
	m := regexp.MustCompile(`"pid": (\d+)`).FindStringSubmatch(out)
	if status != 0 || m == nil {
		t.Fatalf("status %d: %s%s", status, out, complaint)
	}
	pid, err := strconv.Atoi(m[1])
	must.Succeed(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it may have ended
	return pid
}

// load writes and verifies blocks of a part of a disk until ctx ends. It never logs in again.
func load(ctx context.Context, d *initiator.Disk, part int) (commands int, longest time.Duration, err error) {
	r := rand.New(rand.NewPCG(uint64(part), 3))
	written := map[int64][]byte{}
	first := int64(part) * 4 << 20
	for ctx.Err() == nil {
		off := first + r.Int64N(4<<20/4096)*4096
		want := bytes.Repeat([]byte{byte(r.Uint32()), byte(r.Uint32())}, 2048)
		began := time.Now()
		if err := d.WriteAt(context.Background(), want, off); err != nil {
			return commands, longest, fmt.Errorf("write: %w", err)
		}
		written[off] = want
		for off, want = range written { // any of them
			break
		}
		got := make([]byte, len(want))
		if err := d.ReadAt(context.Background(), got, off); err != nil {
			return commands, longest, fmt.Errorf("read: %w", err)
		}
		if !bytes.Equal(got, want) {
			return commands, longest, fmt.Errorf("other data at %d", off)
		}
		longest = max(longest, time.Since(began))
		commands += 2
	}
	return commands, longest, nil
}

// systemd returns what a service reports to systemd, and the socket for it (sd_notify(3)).
func systemd(t *testing.T) (states <-chan string, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must.Succeed(t, err)
	all := make(chan string, 100)
	t.Cleanup(func() { conn.Close() })
	go func() {
		defer close(all)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			all <- string(b[:n])
		}
	}()
	return all, socket
}

// TestServe_Handover: initiators that write and verify go on over handovers, in their
// sessions, and find no unit attention. Standbys, portals and the API are those of the new
// process. One that cannot take over leaves the service as it is.
func TestServe_Handover(t *testing.T) {
	path := writeConfig(t, config)
	states, socket := systemd(t)
	first := odx("serve", "--config", path)
	first.Env = append(first.Env, "NOTIFY_SOCKET="+socket)
	s := startServer(t, first)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	const initiators = 6
	for part := range initiators {
		d := openDisk(t, s.portal)
		all.Go(func() {
			n, longest, err := load(ctx, d, part)
			if err != nil {
				t.Errorf("initiator %d, after %d commands: %v", part, n, err)
			}
			t.Logf("initiator %d: %d commands, the longest took %v", part, n, longest.Round(time.Millisecond))
		})
	}
	before := served(t, path)
	for range 5 {
		out, complaint, status := output(t, "handover", "--config", path)
		now := served(t, path)
		if status != 0 || now == before || out != fmt.Sprintf("process %d serves\n", now) {
			t.Fatalf("status %d, process %d after %d: %s%s", status, now, before, out, complaint)
		}
		before = now
		for want := fmt.Sprintf("MAINPID=%d", now); ; {
			if state := <-states; state == want {
				break
			}
		}
	}
	// Its output goes on: it is that of its successors too.
	if state, err := s.cmd.Process.Wait(); err != nil || !state.Success() {
		t.Errorf("the first process ended with %v, %v", state, err)
	}
	cancel()
	all.Wait()
	openDisk(t, s.portal)

	must.Succeed(t, syscall.Kill(before, syscall.SIGTERM))
	awaitOutput(t, s.stderr, "msg\":\"stopped\"")
	if strings.Contains(s.stderr.String(), "could not go on") {
		t.Errorf("connections were closed:\n%s", s.stderr)
	}
}

// TestServe_HandoverRefused: a program that cannot take over, here because a file that the
// configuration names was removed, changes nothing for initiators nor for the API.
func TestServe_HandoverRefused(t *testing.T) {
	for name, text := range map[string]string{
		"CHAP": strings.Replace(config, "    luns:", "    authentication: {users: [{name: a, secret_file: secret}]}\n    luns:", 1),
		"API":  config + "api: {listen: \"127.0.0.1:0\", secret_file: secret}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "odx.yaml")
			secret := filepath.Join(filepath.Dir(path), "secret")
			must.Succeed(t, os.WriteFile(path, []byte(text), 0o644), os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600))
			s := startServer(t, odx("serve", "--config", path))
			before := served(t, path)
			must.Succeed(t, os.Remove(secret))
			for n := 1; n <= 2; n++ {
				_, complaint, status := output(t, "handover", "--config", path)
				if status != 1 || !strings.Contains(complaint, fmt.Sprintf("process %d goes on: ", before)) || !strings.Contains(complaint, "secret") {
					t.Fatalf("status %d: %s", status, complaint)
				}
				if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, fmt.Sprintf("%d failed", n)) {
					t.Errorf("status does not say so:\n%s", out)
				}
			}
			logIn(t, s.portal).Close()
			s.cmd.Process.Signal(syscall.SIGTERM)
			if err := s.end(t); err != nil {
				t.Errorf("%v; standard error:\n%s", err, s.stderr)
			}
		})
	}
}

// TestServe_HandoverStopped: a signal that ends the server at any time of a handover leaves
// one process that serves, or none, and never a store that is in use by both or damaged.
func TestServe_HandoverStopped(t *testing.T) {
	path := writeConfig(t, config)
	for delay := time.Duration(0); delay <= 100*time.Millisecond; delay += 10 * time.Millisecond {
		s := startServer(t, odx("serve", "--config", path))
		s.cmd.Process.Signal(syscall.SIGUSR2)
		<-time.After(delay) // when the signal comes is what varies
		s.cmd.Process.Signal(syscall.SIGTERM)
		if state, err := s.cmd.Process.Wait(); err != nil || !state.Success() {
			t.Errorf("after %v: the first process ended with %v, %v; standard error:\n%s", delay, state, err, s.stderr)
		}
		// A successor that was to end with the first one ends soon.
		if strings.Contains(s.stderr.String(), `"msg":"handed over"`) {
			out, _, status := output(t, "status", "--json", "--config", path)
			if m := regexp.MustCompile(`"pid": (\d+)`).FindStringSubmatch(out); status == 0 && m != nil {
				pid, _ := strconv.Atoi(m[1])
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
			}
		}
		awaitOutput(t, s.stderr, `"msg":"stopped"`)
		s.stdout.WriteTo(new(bytes.Buffer)) // until none has it open
		if _, complaint, status := output(t, "store", "check", "--config", path); status != 0 {
			t.Errorf("after %v: status %d: %s", delay, status, complaint)
		}
	}
}
