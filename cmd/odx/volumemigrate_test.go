package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
)

// A LUN is moved by command: the server is killed on the way, goes on after its start, and the
// LUN has what was written; comments of the file stay.
func TestVolumeMigrate(t *testing.T) {
	path := writeConfig(t, "# a comment\n"+config)
	s := startServer(t, odx("serve", "--config", path))
	run := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, status := output(t, append(append([]string{"volume", "migrate"}, args...), "--config", path)...)
		if status != want {
			t.Errorf("odx volume migrate %v: exit status %d: %s%s", args, status, stdout, stderr)
		}
		return stdout + stderr
	}
	state := func() (m v1.Migration) {
		t.Helper()
		var list []v1.Migration
		if err := json.Unmarshal([]byte(run(0, "list", "--json")), &list); err != nil || len(list) != 1 {
			t.Fatalf("%v: %+v", err, list)
		}
		return list[0]
	}
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	d := openSession(t, s.portal, 0)
	if err := d.WriteAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"no migration of this volume": {"abort", "src"},
		"volume none: not found":      {"start", "none", "b"},
		"dst: in use as a LUN":        {"start", "src", "dst"},
	} {
		if got := run(1, args...); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %q", args, got, want)
		}
	}
	if got := run(2, "start", "src", "moved", "--rate", "fast"); !strings.Contains(got, "--rate: invalid size") {
		t.Errorf("a rate that is none: %s", got)
	}
	if got, want := run(0, "start", "src", "moved", "--rate", "4MiB"), "migration of volume src to moved: begun; odx volume migrate list says how far it is\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if m := state(); m.State != "copying" {
		t.Errorf("%+v", m)
	}
	if got := run(1, "finish", "src"); !strings.Contains(got, "has not ended") {
		t.Errorf("finish before the end: %s", got)
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	d.Close()
	s = startServer(t, odx("serve", "--config", path))
	d = openSession(t, s.portal, 0)
	defer d.Close()
	copy(data[1<<20:], data[:4096])
	if err := d.WriteAt(t.Context(), data[:4096], 1<<20); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, s.stderr, "migration: the LUN has moved")
	if m := state(); m.State != "moved" || m.CutSeconds <= 0 || m.CutSeconds > 1 {
		t.Errorf("%+v; commands were held for %g s", m, m.CutSeconds)
	}
	if got := run(0, "list"); !strings.Contains(got, "src     moved  moved") {
		t.Errorf("list:\n%s", got)
	}
	got := make([]byte, len(data))
	if err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the LUN has other data than was written (%v)", err)
	}
	if got, want := run(0, "finish", "src"), "migration of volume src to moved: finished\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), "# a comment\n") || !strings.Contains(string(text), "{lun: 0, volume: moved, size: 64MiB, identity: ") {
		t.Errorf("the file is %s (%v)", text, err)
	}
}

// TestPrintMigrations: what is copied counts while a round runs, and what is not known is a dash.
func TestPrintMigrations(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    admin.Migration
		want string // COPIED, LEFT, MiB/s, TIME
	}{
		{"nothing known", admin.Migration{State: admin.MigrationCopying}, "0 - 0.0 -"},
		{"a round", admin.Migration{State: admin.MigrationCopying, CopiedBytes: 1 << 30, RoundBytes: 8 << 20, RoundCopied: 2 << 20, BytesPerSecond: 1 << 20, Remaining: 6 * time.Second},
			"1026MiB 6MiB 1.0 6s"},
		{"moved", admin.Migration{State: admin.MigrationMoved, CopiedBytes: 4 << 20, BytesPerSecond: 1 << 20}, "4MiB - 1.0 -"},
	} {
		var out bytes.Buffer
		tt.m.Volume, tt.m.To = "v", "p:w"
		if err := printMigrations(&out, []admin.Migration{tt.m}); err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(strings.Split(out.String(), "\n")[1])
		if got := strings.Join(fields[5:9], " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
