package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"odx/backstore"
	"odx/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// open opens the store in dir with one volume of 64 MiB, 8 KiB of it written.
func open(t *testing.T, dir string) (*backstore.Store, *tokens.Manager) {
	t.Helper()
	ctx := t.Context()
	s, err := backstore.Open(ctx, backstore.Options{Dir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, backstore.ErrClosed) {
			t.Error(err)
		}
	})
	m, err := tokens.Open(ctx, tokens.Options{Store: tokens.ExtentStore(s), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	v, err := s.CreateVolume(ctx, "src", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(ctx, []byte(strings.Repeat("a fine block of data... ", 512))[:8192], 4096); err != nil {
		t.Fatal(err)
	}
	return s, m
}

// serve answers about a store in dir until the test ends.
func serve(t *testing.T, dir string) (*backstore.Store, *tokens.Manager) {
	t.Helper()
	s, m := open(t, dir)
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(s, m, quiet())
	go server.Serve(l)
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return s, m
}

func TestStore(t *testing.T) {
	short := t.TempDir()
	for name, dir := range map[string]string{
		"short path":                          short,
		"a path longer than a socket address": filepath.Join(t.TempDir(), strings.Repeat("d", 120)),
	} {
		t.Run(name, func(t *testing.T) {
			s, m := serve(t, dir)
			client := NewClient(dir)
			defer client.Close()
			got, err := client.Store(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Volumes) != 1 || got.Volumes[0].Name != "src" || got.Volumes[0].SizeBytes != 64<<20 || got.LogicalBytes != 8192 {
				t.Errorf("got %+v", got)
			}
			want, err := Describe(t.Context(), s, m)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := encode(t, got), encode(t, want); a != b {
				t.Errorf("over the socket %s\nfrom the store %s", a, b)
			}
			info, err := os.Stat(filepath.Join(dir, socketName))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the socket's mode is %v (%v)", info.Mode(), err)
			}
		})
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	client := NewClient(dir)
	defer client.Close()
	if _, err := client.Store(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: got %v", err)
	}

	// A socket that a dead server left.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, socketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := client.Store(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: got %v", err)
	}
	serve(t, dir)
	if _, err := client.Store(t.Context()); err != nil {
		t.Errorf("in place of a dead socket: %v", err)
	}
}

func TestUnknownResource(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	client := NewClient(dir)
	defer client.Close()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://odx/v1/nothing", nil)
		resp, err := client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := `{"error":"no such resource: ` + method + ` /v1/nothing"}` + "\n"; resp.StatusCode != http.StatusNotFound || string(body) != want {
			t.Errorf("%s: %d %q", method, resp.StatusCode, body)
		}
	}
}

func TestFailedAnswer(t *testing.T) {
	dir := t.TempDir()
	s, _ := serve(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	client := NewClient(dir)
	defer client.Close()
	if _, err := client.Store(t.Context()); err == nil || !strings.Contains(err.Error(), backstore.ErrClosed.Error()) {
		t.Errorf("got %v, want the server's reason", err)
	}
}
