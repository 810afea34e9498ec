package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"odx/internal/kit/must"
	"odx/successor"
)

// beFaultySuccessor is a successor with a fault.
func beFaultySuccessor(how string) {
	before, _, err := successor.Connect()
	if err == nil && how != "dies before it is ready" {
		err = before.Ready()
	}
	switch how {
	case "dies before it is ready", "dies when it is ready":
		os.Exit(1)
	case "is ready twice":
		err = before.Ready()
	}
	if err == nil {
		_, err = before.Receive()
	}
	switch how {
	case "refuses with the sessions":
		err = before.Refuse(os.ErrInvalid)
	case "hangs with the sessions":
		fmt.Fprintln(os.Stderr, "successor hangs")
		select {}
	}
	fmt.Fprintln(os.Stderr, "successor ends:", err)
	os.Exit(1)
}

// startPredecessor starts a server whose successors have a fault.
func startPredecessor(t *testing.T, path, how string) *server {
	t.Helper()
	cmd := odx("serve", "--config", path)
	cmd.Env = append(cmd.Env, "BE_SUCCESSOR="+how)
	return startServer(t, cmd)
}

// TestServe_SuccessorFails: whatever becomes of the new process before it serves, the old one
// goes on with its sessions, and odx handover says why, however often that happens.
func TestServe_SuccessorFails(t *testing.T) {
	for _, how := range []string{
		"dies before it is ready", "dies when it is ready", "is ready twice", "dies with the sessions", "refuses with the sessions",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			path := writeConfig(t, config)
			s := startPredecessor(t, path, how)
			before := served(t, path)
			d := openDisk(t, s.portal)
			for n := 1; n <= 3; n++ {
				_, complaint, status := output(t, "handover", "--config", path)
				if status != 1 || !strings.Contains(complaint, fmt.Sprintf("process %d goes on: ", before)) {
					t.Fatalf("handover %d: status %d: %s", n, status, complaint)
				}
				if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, fmt.Sprintf("%d failed", n)) {
					t.Errorf("status does not say that %d failed:\n%s", n, out)
				}
				must.Succeed(t, d.WriteAt(t.Context(), make([]byte, 4096), 0))
			}
			if n := strings.Count(s.stderr.String(), `"msg":"initiator logged in"`); n != 1 {
				t.Errorf("%d logins", n)
			}
			s.stop(t)
		})
	}
}

// TestServe_StoppedInHandover: a server whose successor hangs stops in time all the same.
func TestServe_StoppedInHandover(t *testing.T) {
	s := startPredecessor(t, writeConfig(t, config), "hangs with the sessions")
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGUSR2))
	awaitOutput(t, s.stderr, "successor hangs")
	s.stop(t)
	if !strings.Contains(s.stderr.String(), `"msg":"stopped"`) {
		t.Errorf("no clean stop:\n%s", s.stderr)
	}
}

// TestServe_HandoverLink: where a symbolic link by which odx was started leads to another
// program, that one serves after a handover.
func TestServe_HandoverLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "odx")
	must.Succeed(t, os.Symlink(os.Args[0], link))
	next := filepath.Join(dir, "odx-2")
	program, err := os.ReadFile(os.Args[0])
	must.Succeed(t, err, os.WriteFile(next, program, 0o755))

	path := writeConfig(t, config)
	cmd := odx("serve", "--config", path)
	cmd.Path, cmd.Args[0] = link, link
	startServer(t, cmd)
	served(t, path)
	must.Succeed(t, os.Remove(link), os.Symlink(next, link))
	for range 2 {
		if out, complaint, status := output(t, "handover", "--config", path); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, complaint)
		}
		now := served(t, path)
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", now)); err != nil || got != next {
			t.Errorf("%s serves (%v), not the program that the link leads to now", got, err)
		}
	}
}

// TestAdminister_Handover: commands find the server also while one process takes the place of
// another, which has the store and does not serve the API.
func TestAdminister_Handover(t *testing.T) {
	path := writeConfig(t, config)
	startServer(t, odx("serve", "--config", path))
	served(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, complaint, status := output(t, "volume", "list", "--config", path); strings.Contains(complaint, "in use") {
					t.Errorf("status %d: %s", status, complaint)
					return
				}
			}
		})
	}
	for range 5 {
		if _, complaint, status := output(t, "handover", "--config", path); status != 0 {
			t.Errorf("status %d: %s", status, complaint)
		}
		served(t, path)
	}
	cancel()
	all.Wait()
}

// TestAdminister_NotAgain: a command whose server hands over in the middle of it is not begun
// again with what is left of its input.
func TestAdminister_NotAgain(t *testing.T) {
	path := writeConfig(t, config)
	startServer(t, odx("serve", "--config", path))
	served(t, path)
	for n := range 5 {
		file := fmt.Sprintf("f%d", n)
		put := odx("file", "put", "-", file, "--config", path)
		in, err := put.StdinPipe()
		must.Succeed(t, err)
		must.Succeed(t, put.Start())
		over := make(chan struct{})
		go func() { // in is read all the time
			defer in.Close()
			for part := bytes.Repeat([]byte("one"), 1<<20); ; {
				if _, err := in.Write(part); err != nil {
					return
				}
				select {
				case <-over:
					return
				default:
				}
			}
		}()
		_, complaint, status := output(t, "handover", "--config", path)
		close(over)
		if status != 0 {
			t.Fatalf("status %d: %s", status, complaint)
		}
		served(t, path)
		if err := put.Wait(); err == nil {
			t.Errorf("%s was put in spite of the handover", file)
		}
		if out, _, status := output(t, "file", "list", "--config", path); status != 0 || strings.Contains(out, file) {
			t.Errorf("files:\n%s", out)
		}
	}
}
