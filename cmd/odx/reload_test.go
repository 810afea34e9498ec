package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// inOrder waits for notifications of systemd that match, one after the other; others may come
// in between.
func inOrder(t *testing.T, states <-chan string, want ...string) {
	t.Helper()
	end := time.After(20 * time.Second)
	for _, w := range want {
		for match := regexp.MustCompile(w); ; {
			select {
			case state := <-states:
				if match.MatchString(state) {
					goto next
				}
			case <-end:
				t.Fatalf("systemd is not notified of %q", w)
			}
		}
	next:
	}
}

// TestServe_Reload: SIGHUP applies the file; systemd is notified before and after, and of a
// file that cannot be applied, which changes nothing.
func TestServe_Reload(t *testing.T) {
	path := writeConfig(t, config)
	states, socket := systemd(t)
	cmd := odx("serve", "--config", path)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	s := startServer(t, cmd)
	inOrder(t, states, "^READY=1")
	d := openDisk(t, s.portal)
	reload := func(text string, want ...string) {
		t.Helper()
		must.Succeed(t, os.WriteFile(path, []byte(text), 0o644))
		must.Succeed(t, cmd.Process.Signal(syscall.SIGHUP))
		inOrder(t, states, want...)
	}
	third := strings.Replace(config, "log:", "      - {lun: 2, volume: third, size: 1MiB}\nlog:", 1)
	reload(third, `^RELOADING=1\nMONOTONIC_USEC=\d+`, `^READY=1\nSTATUS=serving$`)
	if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, "third") {
		t.Errorf("the LUN is not served:\n%s", out)
	}
	reload(third+"oops: 1\n", "^RELOADING=1", `^READY=1\nSTATUS=serving; the last reload has changed nothing: .*oops`)
	awaitOutput(t, s.stderr, `unknown key \"oops\"`)
	must.Succeed(t, d.ReadAt(t.Context(), make([]byte, 4096), 0))

	// The format of the log changes, too.
	reload(strings.Replace(third, "level: debug, format: json", "level: info, format: text", 1), "^RELOADING=1", "^READY=1")
	awaitOutput(t, s.stderr, `level=info msg="configuration applied"`)
	must.Succeed(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// TestServe_ReloadHandover: the process that takes over has the configuration that was
// reloaded, whether or not the file has changed since.
func TestServe_ReloadHandover(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	served(t, path)
	third := strings.Replace(config, "log:", "      - {lun: 2, volume: third, size: 1MiB}\nlog:", 1)
	must.Succeed(t, os.WriteFile(path, []byte(third), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, s.stderr, "configuration applied")
	must.Succeed(t, os.WriteFile(path, []byte(config), 0o644))
	if out, complaint, status := output(t, "handover", "--config", path); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, complaint)
	}
	pid := served(t, path)
	if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, "third") {
		t.Errorf("the new process does not have the configuration of the one before it:\n%s", out)
	}
	must.Succeed(t, syscall.Kill(pid, syscall.SIGHUP))
	awaitOutputs(t, s.stderr, "configuration applied", 2) // both processes have this standard error
	if out, _, _ := output(t, "status", "--config", path); strings.Contains(out, "third") {
		t.Errorf("the new process does not reload:\n%s", out)
	}
	must.Succeed(t, syscall.Kill(pid, syscall.SIGTERM))
	awaitOutput(t, s.stderr, `msg":"stopped"`)
}

// TestServe_ReloadStandby: a standby takes over what the server has now: it gives up the
// portal that has left, and serves the file as it is then.
func TestServe_ReloadStandby(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	second := free.Addr().String()
	free.Close()
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	waiting := startStandby(t, path)
	must.Succeed(t, os.WriteFile(path, []byte(strings.Replace(config, `"127.0.0.1:0"`, `"127.0.0.1:0", "`+second+`"`, 1)), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, waiting.stderr, `"address":"`+second)
	one := strings.Replace(config, "log:", "      - {lun: 2, volume: third, size: 1MiB}\nlog:", 1)
	must.Succeed(t, os.WriteFile(path, []byte(one), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, waiting.stderr, "has given up a listening socket")
	awaitOutput(t, s.stderr, `"luns_came":1`)
	if conn, err := net.Dial("tcp", second); err == nil {
		conn.Close()
		t.Error("a portal that has left is still open")
	}
	// A cache that the standby could not go on with is refused.
	cached := strings.Replace(one, "log:", "      - {lun: 3, view: cached}\nviews:\n  - {name: cached, cache: {of: below, mode: write-back}, size: 1MiB}\nlog:", 1)
	must.Succeed(t, os.WriteFile(path, []byte(cached), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, s.stderr, "a write-back cache is lost with the process")
	must.Succeed(t, os.WriteFile(path, []byte(one), 0o644))
	// A standby answers a reload; it applies the file when it takes over.
	must.Succeed(t, waiting.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, waiting.stderr, "this standby uses it when it takes over")
	must.Succeed(t, s.cmd.Process.Kill())
	waiting.awaitReady(t, s.portal)
	if out, _, _ := output(t, "status", "--config", path); !strings.Contains(out, "third") {
		t.Errorf("the standby does not have the LUN that was reloaded:\n%s", out)
	}
}

// TestServe_ReloadKilled: a server that is killed at any time of a reload starts again, with
// what the file says and nothing else: no volume of a reload that was not over is left under a
// hidden name.
func TestServe_ReloadKilled(t *testing.T) {
	path := writeConfig(t, config)
	for n := range sample.Size(2, 6, 40) {
		s := startServer(t, odx("serve", "--config", path))
		lun := fmt.Sprintf("      - {lun: %d, volume: killed%d, size: 1MiB}\nlog:", 2+n, n)
		next := strings.Replace(config, "log:", lun, 1)
		must.Succeed(t, os.WriteFile(path, []byte(next), 0o644))
		must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
		<-time.After(time.Duration(n%10) * 2 * time.Millisecond) // when the signal comes is what varies
		must.Succeed(t, s.cmd.Process.Kill())
		s.cmd.Wait()
		// The file is the next one, so that is what the next start has.
		again := startServer(t, odx("serve", "--config", path))
		out, complaint, status := output(t, "volume", "list", "--json", "--config", path)
		if status != 0 || !strings.Contains(out, fmt.Sprintf(`"killed%d"`, n)) {
			t.Errorf("kill %d: status %d: %s%s", n, status, out, complaint)
		}
		out, _, _ = output(t, "status", "--config", path)
		if !strings.Contains(out, fmt.Sprintf("killed%d", n)) || strings.Contains(out, "NOT SERVED") {
			t.Errorf("kill %d: %s", n, out)
		}
		again.stop(t)
		if out, complaint, status := output(t, "store", "dump", "--json", "--config", path); status != 0 || strings.Contains(out, ".part-") {
			t.Errorf("kill %d: status %d, hidden volumes: %t: %s", n, status, strings.Contains(out, ".part-"), complaint)
		}
		// Without the LUN again, so that startServer finds its two.
		must.Succeed(t, os.WriteFile(path, []byte(config), 0o644))
	}
}

// TestServe_ReloadAPI: a reload changes the secret of the API over TCP, its address, and
// whether there is one.
func TestServe_ReloadAPI(t *testing.T) {
	addresses := make([]string, 2)
	for i := range addresses {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		must.Succeed(t, err)
		addresses[i] = free.Addr().String()
		free.Close()
	}
	listens := func(at int, secret string) string {
		return config + fmt.Sprintf("api: {listen: %q, secrets: [{name: s, role: administer, secret: %s}]}\n", addresses[at], secret)
	}
	status := func(at int, secret string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addresses[at]+"/v1/status", nil)
		must.Succeed(t, err)
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Close = true
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		r.Body.Close()
		return r.StatusCode
	}
	path := writeConfig(t, listens(0, "the-first-secret-1"))
	s := startServer(t, odx("serve", "--config", path))
	applied := 0
	reload := func(text string) {
		t.Helper()
		must.Succeed(t, os.WriteFile(path, []byte(text), 0o644))
		must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
		applied++
		awaitOutputs(t, s.stderr, `"msg":"configuration applied"`, applied)
	}
	for _, step := range []struct {
		text string
		want [4]int // both addresses, with the first and the second secret
	}{
		{listens(0, "the-first-secret-1"), [4]int{200, 401, 0, 0}},
		{listens(0, "the-second-secret-2"), [4]int{401, 200, 0, 0}},
		{listens(1, "the-second-secret-2"), [4]int{0, 0, 401, 200}},
		{config, [4]int{}},
		{listens(0, "the-first-secret-1"), [4]int{200, 401, 0, 0}},
	} {
		reload(step.text)
		got := [4]int{status(0, "the-first-secret-1"), status(0, "the-second-secret-2"), status(1, "the-first-secret-1"), status(1, "the-second-secret-2")}
		if got != step.want {
			t.Errorf("status %v, want %v:\n%s", got, step.want, step.text)
		}
	}
}
