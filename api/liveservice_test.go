package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"odx/admin"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/target"
)

const disksTarget = "iqn.2026-11.example.odx:disks"

// openLive starts a service whose configuration is a file, with an audit file, and serves
// its API on the socket. It returns the path of the configuration.
func openLive(t *testing.T) (client *Client, s *target.Service, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "odx.yaml")
	if err := os.WriteFile(path, []byte(`# The disks.
data_dir: data
portals: ["127.0.0.1:0"]
audit: {file: audit.log}
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB} # the first
`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = target.Start(t.Context(), cfg, logs.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return serveSocket(t, cfg.DataDir, NewServer(Serving{Administrator: s.Admin(), Live: s, Audit: s.Audit(), Log: logs.Discard()})), s, path
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestService_Live changes a running server over the API: what is served, the file and the
// audit file agree, and what is refused changes none of them.
func TestService_Live(t *testing.T) {
	client, s, path := openLive(t)
	ctx := t.Context()
	first := readText(t, path)
	done, err := client.EditConfig(ctx, conf.AddLUN{Target: disksTarget, LUN: conf.LUN{Number: 7, Volume: "data", Size: 1 << 20, BlockSize: 512}})
	if err != nil || len(done.Changes) != 1 || len(done.Came) != 1 || done.Came[0] != (admin.LUNName{Target: disksTarget, Number: 7, Medium: "volume data"}) {
		t.Errorf("added %+v, %v", done, err)
	}
	second := readText(t, path)
	if want := strings.Replace(first, "# the first\n", "# the first\n      - {lun: 7, volume: data, size: 1MiB}\n", 1); second != want {
		t.Errorf("the file is\n%s\nwant\n%s", second, want)
	}
	if st, err := client.Status(ctx); err != nil || len(st.LUNs) != 2 {
		t.Errorf("status %+v, %v", st.LUNs, err)
	}
	for name, text := range map[string]string{
		"no YAML":         "a: [",
		"needs a restart": strings.Replace(second, "data_dir: data", "data_dir: other", 1),
		"no secret":       second + "    authentication: {users: [{name: alice, secret_file: none}]}\n",
		"masked":          second + "    authentication: {users: [{name: alice, secret: (masked)}]}\n",
	} {
		_, err := client.PutConfig(ctx, []byte(text), admin.Digest([]byte(second)))
		var problems conf.Problems
		var restart *admin.NeedsRestartError
		if !errors.As(err, &problems) && !errors.As(err, &restart) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.PutConfig(ctx, []byte(first), admin.Digest([]byte(first))); !errors.Is(err, conf.ErrChanged) {
		t.Errorf("based on what is not there any more: %v", err)
	}
	if got := readText(t, path); got != second {
		t.Errorf("after what was refused the file is\n%s", got)
	}
	if _, err := client.PutConfig(ctx, []byte(first), admin.Digest([]byte(second))); err != nil {
		t.Error(err)
	}
	if _, err := client.Reload(ctx); err != nil {
		t.Error(err)
	}
	s.Audit().Sync(ctx)
	lines := readText(t, filepath.Join(filepath.Dir(path), "audit.log"))
	for _, want := range []string{
		`"subject":"targets[iqn.2026-11.example.odx:disks].luns[7]","after":"{lun: 7, volume: data, size: 1MiB}","by":{"kind":"local"`,
		`"subject":"targets[iqn.2026-11.example.odx:disks].luns[7]","before":"{lun: 7, volume: data, size: 1MiB}","by":{"kind":"local"`,
	} {
		if strings.Count(lines, want) != 1 {
			t.Errorf("the audit file has not once %s:\n%s", want, lines)
		}
	}
	if n := strings.Count(lines, `"error":`); n != 5 {
		t.Errorf("%d of 5 refusals are in the audit file:\n%s", n, lines)
	}
}

// TestService_LiveConcurrent reloads while clients ask: each is answered.
func TestService_LiveConcurrent(t *testing.T) {
	client, _, _ := openLive(t)
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for name, ask := range map[string]func() error{
		"status":   func() error { _, err := client.Status(t.Context()); return err },
		"volumes":  func() error { _, err := client.Volumes(t.Context()); return err },
		"counters": func() error { _, err := client.LUNStats(t.Context()); return err },
		"sessions": func() error { _, err := client.Sessions(t.Context()); return err },
		"text":     func() error { _, err := client.Config(t.Context()); return err },
	} {
		asking.Go(func() {
			for ctx.Err() == nil {
				if err := ask(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	for i := range 10 {
		lun := conf.LUN{Number: 7, Volume: fmt.Sprintf("v%d", i), Size: 1 << 20, BlockSize: 512}
		if _, err := client.EditConfig(t.Context(), conf.AddLUN{Target: disksTarget, LUN: lun}); err != nil {
			t.Error(err)
		}
		if _, err := client.EditConfig(t.Context(), conf.RemoveLUN{Target: disksTarget, Number: 7}); err != nil {
			t.Error(err)
		}
	}
	stop()
	asking.Wait()
}
