package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// startStandby starts a standby and waits until it holds the sockets of the server.
func startStandby(t *testing.T, path string) *server {
	t.Helper()
	s := &server{cmd: odx("serve", "--standby", "--config", path), stderr: new(logs.Text)}
	s.cmd.Stderr = s.stderr
	pipe, err := s.cmd.StdoutPipe()
	must.Succeed(t, err)
	must.Succeed(t, s.cmd.Start())
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	})
	s.stdout = bufio.NewReader(pipe)
	if line, err := s.stdout.ReadString('\n'); err != nil || !strings.Contains(line, "is a standby for the store in ") {
		t.Fatalf("said %q (%v); standard error:\n%s", line, err, s.stderr)
	}
	awaitOutput(t, s.stderr, "standby holds a listening socket")
	return s
}

// awaitOutput waits until a process has written text.
func awaitOutput(t *testing.T, out *logs.Text, text string) {
	t.Helper()
	awaitOutputs(t, out, text, 1)
}

// awaitOutputs waits until out has text n times.
func awaitOutputs(t *testing.T, out *logs.Text, text string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := out.Await(ctx, text, n); err != nil {
		t.Fatalf("never wrote %q %d times:\n%s", text, n, out)
	}
}

// awaitReady waits until a standby serves, at the portal of the server before it.
func (s *server) awaitReady(t *testing.T, portal string) {
	t.Helper()
	line, err := s.stdout.ReadString('\n')
	m := readyLine.FindStringSubmatch(line)
	if err != nil || m == nil || m[1] != portal {
		t.Fatalf("said %q (%v), want it to be ready on %s; standard error:\n%s", line, err, portal, s.stderr)
	}
	s.portal = m[1]
}

// openDisk logs in to LUN 0.
func openDisk(t *testing.T, portal string) *initiator.Disk {
	t.Helper()
	url, err := initiator.ParseURL("iscsi://" + portal + "/iqn.2026-11.example.odx:disks/0")
	must.Succeed(t, err)
	d, err := initiator.Open(t.Context(), initiator.Options{InitiatorName: "iqn.2026-11.example.odx:host", URL: url})
	must.Succeed(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// TestServe_Standby: a standby serves when the owner ends, whether it was killed or stopped:
// at the same portal, also for those who connect before it is ready, with what was acknowledged, and
// by the configuration that there is then. Standbys that wait end with a signal.
func TestServe_Standby(t *testing.T) {
	path := writeConfig(t, config)
	owner := startServer(t, odx("serve", "--config", path))
	portal := owner.portal
	standby := startStandby(t, path)
	idle := startStandby(t, path)
	if out, _, status := output(t, "status", "--config", path); status != 0 || !strings.Contains(out, "standby  2") {
		t.Errorf("status %d: %s", status, out)
	}
	idle.cmd.Process.Signal(syscall.SIGTERM)
	if err := idle.end(t); err != nil {
		t.Errorf("a standby that was stopped: %v", err)
	}
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		data := block(i + 1)
		must.Succeed(t, openDisk(t, portal).WriteAt(t.Context(), data, 1<<20))
		if i == 1 { // a change that status shows
			text := strings.Replace(config, "lun: 1", "lun: 5", 1)
			must.Succeed(t, os.WriteFile(path, []byte(text), 0o644))
		}
		owner.cmd.Process.Signal(sig)
		err := owner.end(t)
		var exit *exec.ExitError
		if (sig == syscall.SIGKILL) != errors.As(err, &exit) {
			t.Errorf("after %v: %v", sig, err)
		}
		got := make([]byte, len(data))
		must.Succeed(t, openDisk(t, portal).ReadAt(t.Context(), got, 1<<20))
		if string(got) != string(data) {
			t.Errorf("after %v: other data", sig)
		}
		standby.awaitReady(t, portal)
		awaitOutput(t, standby.stderr, "initiators keep their reservations")
		owner = standby
		if i == 0 {
			standby = startStandby(t, path)
		}
	}
	if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, ":disks/5") {
		t.Errorf("the configuration of the takeover is not used:\n%s", out)
	}
	owner.cmd.Process.Signal(syscall.SIGTERM)
	if err := owner.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, owner.stderr)
	}
}

// TestServe_StandbyConfig: a standby refuses at its start what it could not serve.
func TestServe_StandbyConfig(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"write-back": {config + "views: [{name: v, cache: {of: c, memory: 1MiB, mode: write-back}, size: 1MiB}]\n", "views[0].cache.mode: view v: a write-back cache is lost with the process"},
		"secret":     {config + "api: {listen: \"127.0.0.1:0\", secret_file: none}\n", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, complaint, status := output(t, "serve", "--standby", "--config", writeConfig(t, c.text))
			if status != 1 || !strings.Contains(complaint, c.want) {
				t.Errorf("status %d: %s", status, complaint)
			}
		})
	}
}
