package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/must"
)

// freeAddress returns an address of the loopback on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer l.Close()
	return l.Addr().String()
}

// fetch returns the answer to a GET.
func fetch(t *testing.T, c *http.Client, url string) (code int, body string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must.Succeed(t, err)
	return res.StatusCode, string(b)
}

// getAll returns the body of a GET that succeeds.
func getAll(c *http.Client, url string) (string, error) {
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(body), err
}

// wantAnswer fails unless the answer has this status and text.
func wantAnswer(t *testing.T, c *http.Client, url string, code int, text string) {
	t.Helper()
	if got, body := fetch(t, c, url); got != code || !strings.Contains(body, text) {
		t.Errorf("%s: %d, want %d with %q\n%.2000s", url, got, code, text, body)
	}
}

// socketClient returns a client of the API's socket of a configuration.
func socketClient(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(filepath.Dir(path), "data", "odx.sock"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestServe_Metrics: metrics and health at an address of their own and on the socket, which
// a reload moves, and a handover does not interrupt.
func TestServe_Metrics(t *testing.T) {
	address := freeAddress(t)
	with := func(address string) string { return config + "metrics: {listen: \"" + address + "\"}\n" }
	path := writeConfig(t, with(address))
	s := startServer(t, odx("serve", "--config", path))
	d := openDisk(t, s.portal)
	must.Succeed(t, d.WriteAt(t.Context(), make([]byte, 8192), 0))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	local := socketClient(t, path)
	for name, at := range map[string]struct {
		client *http.Client
		base   string
	}{"address": {client, "http://" + address}, "socket": {local, "http://odx"}} {
		t.Run(name, func(t *testing.T) {
			wantAnswer(t, at.client, at.base+"/metrics", 200, "\nodx_lun_bytes_total{kind=\"write\",medium=\"volume src\"} 8192\n")
			wantAnswer(t, at.client, at.base+"/metrics", 200, "\nodx_sessions{target=\"iqn.2026-11.example.odx:disks\"} 1\n")
			wantAnswer(t, at.client, at.base+"/metrics", 200, "\nodx_build_info{")
			wantAnswer(t, at.client, at.base+"/livez", 200, "ok")
			wantAnswer(t, at.client, at.base+"/readyz", 200, "ok")
		})
	}
	wantAnswer(t, client, "http://"+address+"/debug/pprof/", 404, "")
	wantAnswer(t, local, "http://odx/debug/pprof/", 200, "goroutine")
	wantAnswer(t, local, "http://odx/debug/pprof/goroutine?debug=1", 200, "monitor.(*Progress).Run")

	// A reload to another address. One that cannot be bound changes nothing.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer taken.Close()
	must.Succeed(t, os.WriteFile(path, []byte(with(taken.Addr().String())), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, s.stderr, "metrics.listen")
	wantAnswer(t, client, "http://"+address+"/livez", 200, "ok")
	other := freeAddress(t)
	must.Succeed(t, os.WriteFile(path, []byte(with(other)), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	awaitOutput(t, s.stderr, "configuration applied")
	wantAnswer(t, client, "http://"+other+"/readyz", 200, "ok")
	if _, err := client.Get("http://" + address + "/livez"); err == nil {
		t.Error("the address before it is served")
	}

	// A handover: a connection is never refused.
	served(t, path)
	if out, complaint, status := output(t, "handover", "--config", path); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, complaint)
	}
	wantAnswer(t, client, "http://"+other+"/readyz", 200, "ok")
	wantAnswer(t, client, "http://"+other+"/metrics", 200, "\nodx_sessions{target=\"iqn.2026-11.example.odx:disks\"} 1\n")
	must.Succeed(t, syscall.Kill(served(t, path), syscall.SIGTERM))
	awaitOutput(t, s.stderr, `msg":"stopped"`)
}

// TestServe_Watchdog: the process reports its progress to systemd while it serves, while it
// waits as a standby, and when it has taken over by a handover.
func TestServe_Watchdog(t *testing.T) {
	path := writeConfig(t, config)
	states, socket := systemd(t)
	watched := func(args ...string) []string {
		return append(args, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000")
	}
	cmd := odx("serve", "--config", path)
	cmd.Env = watched(cmd.Env...)
	s := startServer(t, cmd)
	inOrder(t, states, "^READY=1", "^WATCHDOG=1$", "^WATCHDOG=1$", "^WATCHDOG=1$")

	waiting := odx("serve", "--standby", "--config", path)
	standby, waitingSocket := systemd(t)
	waiting.Env = append(waiting.Env, "NOTIFY_SOCKET="+waitingSocket, "WATCHDOG_USEC=600000")
	must.Succeed(t, waiting.Start())
	inOrder(t, standby, "^READY=1", "^WATCHDOG=1$", "^WATCHDOG=1$")
	must.Succeed(t, waiting.Process.Signal(syscall.SIGTERM))
	must.Succeed(t, waiting.Wait())

	served(t, path)
	if out, complaint, status := output(t, "handover", "--config", path); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, complaint)
	}
	inOrder(t, states, "^MAINPID=", "^WATCHDOG=1$", "^WATCHDOG=1$", "^WATCHDOG=1$")
	must.Succeed(t, syscall.Kill(served(t, path), syscall.SIGTERM))
	inOrder(t, states, "^STOPPING=1")
	awaitOutput(t, s.stderr, `msg":"stopped"`)
}

// TestForgetWatchdogPID: systemd names the process that it watches: the one that it has
// started. The process that takes over from it reports nevertheless.
func TestForgetWatchdogPID(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()+1))
	if d := progressInterval(); d != longestProgress {
		t.Errorf("another process is watched: %v", d)
	}
	forgetWatchdogPID()
	if d := progressInterval(); d != time.Second {
		t.Errorf("this process is watched: %v", d)
	}
}

// TestServe_Alerts: a webhook that a reload adds gets what goes on, with the secret.
func TestServe_Alerts(t *testing.T) {
	type post struct {
		authorization string
		names         []string
	}
	posts := make(chan post, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var m struct {
			Alerts []struct{ Labels map[string]string }
		}
		if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		p := post{authorization: req.Header.Get("Authorization")}
		for _, a := range m.Alerts {
			p.names = append(p.names, a.Labels["alertname"])
		}
		posts <- p
	}))
	defer hook.Close()
	missing := strings.Replace(config, "volume: dst, size: 64MiB", "volume: dst", 1) // is not created
	path := writeConfig(t, missing)
	s := startServer(t, odx("serve", "--config", path))
	must.Succeed(t, os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte("of the webhook"), 0o600))
	must.Succeed(t, os.WriteFile(path, []byte(missing+"alerts: [{name: ops, url: \""+hook.URL+"\", secret_file: secret}]\n"), 0o644))
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGHUP))
	select {
	case p := <-posts:
		if p.authorization != "Bearer of the webhook" || strings.Join(p.names, " ") != "OdxLunNotServed" {
			t.Errorf("posted %+v", p)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing is posted:\n%s", s.stderr)
	}
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGTERM))
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}
