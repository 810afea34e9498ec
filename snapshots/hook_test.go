package snapshots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/admin"
	"odx/backstore/vfs"
	"odx/conf"
	"odx/internal/kit/must"
)

// hook makes a program of a shell script in the directory of hooks.
func hook(t *testing.T, dir, name, script string) {
	t.Helper()
	must.Succeed(t, os.MkdirAll(filepath.Join(dir, "hooks"), 0o755))
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "hooks", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// ends waits until a process, which need not be a child, has ended.
func ends(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	must.Succeed(t, err)
	defer unix.Close(fd)
	for end := time.Now().Add(10 * time.Second); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		must.Succeed(t, err)
		if n == 0 {
			t.Fatalf("process %d lives", pid)
		}
		return
	}
}

// TestRunHook: what a program finds, and what is kept of what it writes.
func TestRunHook(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("ODX_TEST_SECRET", "seen")
	hook(t, dir, "show", `echo "$1|$ODX_POLICY|$ODX_STAGE|$ODX_RUN|$ODX_VOLUMES|$ODX_SNAPSHOTS|$ODX_RESULT|$ODX_ERROR|$ODX_TEST_SECRET|$PWD" >&2`)
	hook(t, dir, "loud", `yes | head -c 100000`)
	hook(t, dir, "fails", `echo no; exit 3`)
	run := func(f facts, command ...string) (string, error) {
		command[0] = filepath.Join(dir, "hooks", command[0])
		return runHook(t.Context(), &conf.Hook{Command: command, TimeLimit: time.Minute}, &f)
	}
	f := facts{Policy: "p", Stage: "after", Run: 7, Volumes: []string{"a", "b"}, Snapshots: []string{"a-1"}, Result: "failed", Error: "why"}
	if got, err := run(f, "show", "$(id); a b"); err != nil || got != "$(id); a b|p|after|7|a\nb|a-1|failed|why||/" {
		t.Errorf("%q, %v", got, err)
	}
	f.Stage = "before"
	if got, err := run(f, "show", ""); err != nil || got != "|p|before|7|a\nb|||||/" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := run(f, "loud"); err != nil || len(got) > maxOutput+100 || !strings.HasSuffix(got, "bytes more)") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := run(f, "fails"); got != "no" || err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := run(f, "none"); err == nil {
		t.Error("a program that does not exist was run")
	}
	for range 4000 {
		f.Volumes = append(f.Volumes, strings.Repeat("v", 64))
	}
	if _, err := run(f, "loud"); err != nil {
		t.Errorf("more names than a variable has room for: %v", err)
	}
	must.Succeed(t, os.Chmod(filepath.Join(dir, "hooks", "fails"), 0o777))
	if _, err := run(facts{}, "fails"); err == nil || !strings.Contains(err.Error(), "world-writable") {
		t.Errorf("a program that others can write: %v", err)
	}
}

// TestRunHook_TimeLimit: the program and its children are killed, at the time limit and when
// the server stops; a child that has left nothing but its output behind delays nothing.
func TestRunHook_TimeLimit(t *testing.T) {
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	must.Succeed(t, syscall.Mkfifo(pids, 0o600))
	hook(t, dir, "hangs", `trap "" TERM; sleep 1000 & echo "$$ $!" > "$1"; wait`)
	hook(t, dir, "leaves", `sleep 20 & echo done`)
	for _, c := range []struct {
		name  string
		limit time.Duration
		stop  bool
		want  error
	}{{"time limit", time.Second, false, errHookLimit}, {"stop", time.Hour, true, context.Canceled}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := runHook(ctx, &conf.Hook{Command: []string{filepath.Join(dir, "hooks", "hangs"), pids}, TimeLimit: c.limit}, &facts{})
				ended <- err
			}()
			text, err := os.ReadFile(pids) // until it has both
			must.Succeed(t, err)
			if c.stop {
				cancel()
			}
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			for _, word := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(word)
				must.Succeed(t, err)
				ends(t, pid)
			}
		})
	}
	start := time.Now()
	got, err := runHook(t.Context(), &conf.Hook{Command: []string{filepath.Join(dir, "hooks", "leaves")}, TimeLimit: time.Minute}, &facts{})
	if took := time.Since(start); err != nil || got != "done" || took > 15*time.Second {
		t.Errorf("%q after %v, %v", got, took, err)
	}
}

// TestPolicies_Hooks: what is run after the snapshots always is, if what is run before them
// was; which failures end a run.
func TestPolicies_Hooks(t *testing.T) {
	for _, c := range []struct {
		name, before, after string // scripts
		onBefore, onAfter   string
		taken               int
		problem, log        string
	}{
		{"both succeed", "", "", "abort", "abort", 1, "", "before; after ok a-1"},
		{"before fails", "exit 1", "", "abort", "abort", 0, "aborted: hook", "before; after failed "},
		{"before fails, and it goes on", "exit 1", "", "continue", "abort", 1, "", "before; after ok a-1"},
		{"after fails", "", "exit 1", "abort", "abort", 1, "aborted: hook", "before; after ok a-1"},
		{"after fails, and it goes on", "", "exit 1", "abort", "continue", 1, "", "before; after ok a-1"},
		{"before is killed", "sleep 1000", "", "abort", "abort", 0, "killed at its time limit", "before; after failed "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "log")
			hook(t, dir, "before", fmt.Sprintf("printf 'before; ' >> %s; %s", log, c.before))
			hook(t, dir, "after", fmt.Sprintf(`printf 'after %%s %%s' "$ODX_RESULT" "$ODX_SNAPSHOTS" >> %s; %s`, log, c.after))
			s := serve(t, vfs.NewMem(), "")
			defer s.stop(t)
			s.volume(t, "a")
			s.Configure(configureIn(t, dir, fmt.Sprintf(`snapshots: [{name: p, volumes: [a], every: 24h, names: "%%v-%%n", before: {command: [before], time_limit: 1s, on_failure: %s}, after: {command: [after], on_failure: %s}}]`, c.onBefore, c.onAfter)))
			done, err := s.RunPolicy(t.Context(), "p")
			must.Succeed(t, err)
			if len(done.Taken) != c.taken || (done.Problem == "") != (c.problem == "") || !strings.Contains(done.Problem, c.problem) {
				t.Errorf("%+v", done)
			}
			if text, err := os.ReadFile(log); err != nil || string(text) != c.log {
				t.Errorf("run: %q, want %q; %v", text, c.log, err)
			}
		})
	}
}

// TestPolicies_Hooks_Stop: a stop kills what is run before the snapshots, and what is run after
// them is run. A process that ended before that is made up for by the next one.
func TestPolicies_Hooks_Stop(t *testing.T) {
	dir := t.TempDir()
	log, begun := filepath.Join(dir, "log"), filepath.Join(dir, "begun")
	must.Succeed(t, syscall.Mkfifo(begun, 0o600))
	hook(t, dir, "before", fmt.Sprintf("echo >> %s; exec sleep 1000", begun))
	hook(t, dir, "after", fmt.Sprintf(`echo "$ODX_RUN $ODX_RESULT" >> %s`, log))
	disk := vfs.NewMem()
	s := serve(t, disk, "")
	s.volume(t, "a")
	cfg := configureIn(t, dir, `snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n", before: {command: [before], time_limit: 1h}, after: {command: [after]}}]`)
	s.Configure(cfg)
	ended := make(chan admin.PolicyRun, 1)
	go func() {
		done, _ := s.RunPolicy(context.Background(), "p")
		ended <- done
	}()
	_, err := os.ReadFile(begun)
	must.Succeed(t, err)
	if _, err := s.RunPolicy(t.Context(), "p"); !errors.Is(err, admin.ErrPolicyBusy) {
		t.Errorf("a second run: %v", err)
	}
	killed := disk.ProcessClone() // what a SIGKILL now would leave
	s.stop(t)
	if done := <-ended; done.Problem == "" || len(done.Taken) > 0 {
		t.Errorf("%+v", done)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "1 failed\n" {
		t.Errorf("run: %q, %v", text, err)
	}
	must.Succeed(t, os.Remove(log))
	s = serve(t, killed, "")
	s.Configure(cfg)
	for end := time.Now().Add(20 * time.Second); s.first().LastError == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the interrupted run was not ended")
		}
	}
	s.stop(t)
	if text, err := os.ReadFile(log); err != nil || string(text) != "1 interrupted\n" {
		t.Errorf("run by the next process: %q, %v", text, err)
	}
}
