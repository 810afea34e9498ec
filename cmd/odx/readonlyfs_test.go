package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"odx/backstore"
	"odx/initiator"
)

// readOnlyFS has a command see a directory on a file system that is read-only.
func readOnlyFS(t *testing.T, dir string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	const script = `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"`
	args := []string{"--map-root-user", "--mount", "sh", "-c", script, "sh", dir}
	if out, err := exec.Command("unshare", append(args, "true")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "NOT TESTED: %s: unshare: %v: %s\n", t.Name(), err, out)
		t.Skipf("NOT TESTED: unshare: %v: %s", err, out)
	}
	in := exec.Command("unshare", append(args, cmd.Args...)...)
	in.Env, in.SysProcAttr = cmd.Env, cmd.SysProcAttr
	return in
}

// TestReadOnlyFileSystem: a store on a file system that can only be read any more
// is repaired into another directory, and rescued.
func TestReadOnlyFileSystem(t *testing.T) {
	path := createStore(t)
	onStore(t, path, fillSrc(40))
	dir := filepath.Dir(path)
	to := filepath.Join(t.TempDir(), "data")

	out, err := readOnlyFS(t, dir, odx("store", "repair", "--to", to, "--config", path)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all of their data was read and verified") {
		t.Errorf("repair: %v: %s", err, out)
	}
	repaired := writeConfig(t, strings.Replace(config, "data_dir: data", "data_dir: "+to, 1))
	if err := os.Symlink(to, filepath.Join(filepath.Dir(repaired), "data")); err != nil {
		t.Fatal(err)
	}
	onStore(t, repaired, func(t *testing.T, s *backstore.Store) {
		v, err := s.Volume("src")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		if err := v.ReadAt(t.Context(), p, 39*4096); err != nil || !bytes.Equal(p, block(39)) {
			t.Errorf("a block of the repaired store: %v", err)
		}
	})

	s := startServer(t, readOnlyFS(t, dir, odx("serve", "--rescue", "--config", path)))
	u, err := initiator.ParseURL(strings.Fields(s.lines[1])[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := initiator.Open(t.Context(), initiator.Options{InitiatorName: "iqn.2026-11.example.host:a", URL: u})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if err := d.ReadAt(t.Context(), p, 39*4096); err != nil || !bytes.Equal(p, block(39)) {
		t.Errorf("a block of the rescued store: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.stop(t)
}
