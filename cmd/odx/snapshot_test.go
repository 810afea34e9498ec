package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// policiesOf returns the configuration of tests with policies.
func policiesOf(list string) string { return config + "snapshots:\n" + list }

// jsonOf runs odx with --json, and decodes what it prints.
func jsonOf[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	out, errs, status := output(t, append(args, "--json")...)
	if status != 0 {
		t.Fatalf("odx %v: %d, %s", args, status, errs)
	}
	must.Succeed(t, json.Unmarshal([]byte(out), &v))
	return v
}

// snapshotNames returns the names of the snapshots.
func snapshotNames(t *testing.T, path string) (names []string) {
	t.Helper()
	for _, s := range jsonOf[[]v1.Snapshot](t, "snapshot", "list", "--config", path) {
		names = append(names, s.Name)
	}
	slices.Sort(names) // times of snapshots by hand have whole seconds
	return names
}

// TestSnapshot_Policies: a server takes snapshots, prunes them, is killed, and makes up for
// what it missed; a user's snapshot stays; pause and resume edit the file; a reload adds a
// policy.
func TestSnapshot_Policies(t *testing.T) {
	const hourly = "  - {name: hourly, volumes: [src], every: 1h, keep: {last: 2}, names: \"%v-%n\"} # kept\n"
	path := writeConfig(t, policiesOf(hourly))
	s := startServer(t, odx("serve", "--config", path))
	for range 3 {
		if out, errs, status := output(t, "snapshot", "run", "hourly", "--config", path); status != 0 || !strings.Contains(out, ": taken") {
			t.Fatalf("run: %d, %s%s", status, out, errs)
		}
	}
	if out, errs, status := output(t, "volume", "snapshot", "src", "src-1", "--config", path); status != 0 {
		t.Fatal(out, errs)
	}
	if names := snapshotNames(t, path); !slices.Equal(names, []string{"src-1", "src-2", "src-3"}) {
		t.Errorf("snapshots %v", names)
	}
	dry := jsonOf[[]v1.PrunedSnapshot](t, "snapshot", "prune", "hourly", "--dry-run", "--config", path)
	if len(dry) != 2 || dry[0].Name != "src-2" || !slices.Equal(dry[0].Reasons, []string{"last"}) {
		t.Errorf("prune: %+v", dry)
	}
	for _, format := range []string{"table", "yaml", "ndjson"} {
		for _, command := range []string{"list", "policies", "prune hourly --dry-run"} {
			args := append([]string{"snapshot"}, strings.Fields(command)...)
			if out, errs, status := output(t, append(args, "--output", format, "--config", path)...); status != 0 || !strings.Contains(out, "src-2") && command != "policies" || !strings.Contains(out, "hourly") && command == "policies" {
				t.Errorf("%s as %s: %d\n%s%s", command, format, status, out, errs)
			}
		}
	}
	if _, errs, status := output(t, "snapshot", "run", "none", "--config", path); status != 1 || !strings.Contains(errs, "no such policy") {
		t.Errorf("an unknown policy: %d, %s", status, errs)
	}

	if _, errs, status := output(t, "snapshot", "pause", "hourly", "--config", path); status != 0 {
		t.Error(errs)
	}
	if p := jsonOf[[]v1.SnapshotPolicy](t, "snapshot", "policies", "--config", path); !p[0].Paused || p[0].Failures != 0 || p[0].Snapshots != 2 {
		t.Errorf("paused: %+v", p)
	}
	if _, errs, status := output(t, "snapshot", "resume", "hourly", "--config", path); status != 0 {
		t.Error(errs)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "# kept") || strings.Contains(string(text), "pause") {
		t.Errorf("the file is\n%s%v", text, err)
	}

	// A group of the volumes, with programs, by a reload.
	hooks := filepath.Join(filepath.Dir(path), "hooks")
	must.Succeed(t, os.Mkdir(hooks, 0o755))
	must.Succeed(t, os.WriteFile(filepath.Join(hooks, "note"), []byte("#!/bin/sh\necho \"$1 $ODX_STAGE $ODX_VOLUMES\"\n"), 0o755))
	group := hourly + "  - {name: group, volumes: [\"*\"], at: [\"0 3 * * *\"], together: true, names: \"%v.%n\", before: {command: [note, hello]}}\n"
	must.Succeed(t, os.WriteFile(path, []byte(policiesOf(group)), 0o644))
	if _, errs, status := output(t, "reload", "--config", path); status != 0 {
		t.Fatal(errs)
	}
	run := jsonOf[v1.SnapshotRun](t, "snapshot", "run", "group", "--config", path)
	if !slices.Equal(run.Taken, []string{"dst.1", "src.1"}) || run.Problem != "" {
		t.Errorf("%+v", run)
	}
	awaitOutput(t, s.stderr, `hello before dst\nsrc`)

	// The process is killed, and the time of the last run set to three hours ago.
	must.Succeed(t, s.cmd.Process.Kill())
	_ = s.cmd.Wait()
	longAgo(t, filepath.Join(filepath.Dir(path), "data"))
	s = startServer(t, odx("serve", "--config", path))
	awaitOutput(t, s.stderr, `"msg":"snapshots taken"`)
	if names, want := snapshotNames(t, path), []string{"dst.1", "src-1", "src-3", "src-4", "src.1"}; !slices.Equal(names, want) {
		t.Errorf("after the kill: %v, want %v", names, want)
	}
	must.Succeed(t, s.cmd.Process.Signal(syscall.SIGTERM))
	if err := s.end(t); err != nil {
		t.Error(err)
	}
	if n := strings.Count(s.stderr.String(), `"msg":"snapshots taken"`); n != 1 {
		t.Errorf("%d runs to make up for three hours", n)
	}
}

// longAgo sets the time of the last run of the policy hourly.
func longAgo(t *testing.T, dir string) {
	t.Helper()
	ctx := context.Background()
	store, err := backstore.Open(ctx, backstore.Options{Dir: dir, Log: logs.Discard(), CacheBytes: 16 << 20})
	must.Succeed(t, err)
	const key = "snapshots/policy/hourly"
	value, err := store.GetRecord([]byte(key))
	must.Succeed(t, err)
	var record map[string]any
	must.Succeed(t, json.Unmarshal(value, &record))
	if record["version"] != 1. || record["runs"] != 3. {
		t.Errorf("the record is %s", value)
	}
	record["last"] = time.Now().Add(-3 * time.Hour).UTC().Format(time.RFC3339Nano)
	value, err = json.Marshal(record)
	must.Succeed(t, err)
	must.Succeed(t, store.PutRecords(ctx, backstore.Record{Key: []byte(key), Value: value}))
	must.Succeed(t, store.Close())
}

// TestSnapshot_NoServer: the commands need a server, but for those that edit the file.
func TestSnapshot_NoServer(t *testing.T) {
	path := writeConfig(t, policiesOf("  - {name: hourly, volumes: [src], every: 1h}\n"))
	for _, args := range [][]string{{"list"}, {"policies"}, {"run", "hourly"}, {"prune", "hourly"}} {
		if _, errs, status := output(t, append(append([]string{"snapshot"}, args...), "--config", path)...); status != 5 {
			t.Errorf("%v: %d, %s", args, status, errs)
		}
	}
	if _, errs, status := output(t, "snapshot", "pause", "hourly", "--config", path); status != 0 {
		t.Error(errs)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "pause: true") {
		t.Error(fmt.Sprint(string(text), err))
	}
}

// TestConfigCheck_Hooks: a program that is missing, or that others can write, is a problem of
// its line.
func TestConfigCheck_Hooks(t *testing.T) {
	path := writeConfig(t, policiesOf("  - {name: h, volumes: [src], every: 1h, before: {command: [freeze]}}\n"))
	check := func(want string) {
		t.Helper()
		out, errs, status := output(t, "config", "check", path)
		if (status == 0) != (want == "") || !strings.Contains(out+errs, want) {
			t.Errorf("%d, %s%s; want %q", status, out, errs, want)
		}
	}
	check("snapshots[0].before")
	hooks := filepath.Join(filepath.Dir(path), "hooks")
	must.Succeed(t, os.Mkdir(hooks, 0o755))
	must.Succeed(t, os.WriteFile(filepath.Join(hooks, "freeze"), []byte("#!/bin/sh\n"), 0o755))
	check("")
	must.Succeed(t, os.Chmod(filepath.Join(hooks, "freeze"), 0o757))
	check("world-writable")
}
