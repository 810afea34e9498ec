package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const (
	supportSecret = "SecretOfTheHost1"
	supportConfig = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    authentication: {users: [{name: host1, secret: ` + supportSecret + `}]}
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB}
`
)

// untar returns the files of a bundle by their names without the directory.
func untar(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if path.Dir(h.Name) == "." || h.Mode != 0o600 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		files[path.Base(h.Name)] = string(text)
	}
}

// TestSupportBundle: a bundle has everything that is there, and no secret.
func TestSupportBundle(t *testing.T) {
	config := writeConfig(t, supportConfig)
	bundle := func(t *testing.T, args ...string) map[string]string {
		t.Helper()
		stdout, stderr, status := output(t, append([]string{"support", "bundle", "-", "--config", config}, args...)...)
		if status != 0 {
			t.Fatalf("exit status %d: %s", status, stderr)
		}
		files := untar(t, []byte(stdout))
		for name, text := range files {
			if strings.Contains(text, supportSecret) {
				t.Errorf("%s has a secret", name)
			}
			if strings.HasSuffix(name, ".json") && !json.Valid([]byte(text)) {
				t.Errorf("%s is no JSON: %s", name, text)
			}
		}
		return files
	}
	contains := func(t *testing.T, files map[string]string, want map[string]string) {
		t.Helper()
		for name, part := range want {
			if !strings.Contains(files[name], part) {
				t.Errorf("%s lacks %q: %.300s", name, part, files[name])
			}
		}
	}
	s := startServer(t, odx("serve", "--config", config))
	t.Run("server", func(t *testing.T) {
		contains(t, bundle(t), map[string]string{
			"README.txt": "no secrets", "version.txt": "odx ", "machine.txt": "== file system of ", "config.yaml": "iqn.2026-11.example.odx:disks",
			"store.json": `"id"`, "volumes.json": `"src"`, "status.json": `"portals"`, "sessions.json": "[", "luns.json": "[", "copies.json": "{",
			"metrics.txt": "odx_", "ready.txt": "", "goroutines.txt": "goroutine ", "heap.txt": "heap profile", "check.json": "{",
		})
	})
	t.Run("without a check", func(t *testing.T) {
		contains(t, bundle(t, "--check-limit", "0"), map[string]string{"MISSING.txt": "check.json: left out"})
	})
	t.Run("new file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "bundle.tar.gz")
		stdout, stderr, status := output(t, "support", "bundle", name, "--config", config)
		if status != 0 || !strings.Contains(stdout, "  goroutines.txt ") || !strings.Contains(stdout, "tar -xzf "+name) {
			t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if _, stderr, status := output(t, "support", "bundle", name, "--config", config); status != 1 || !strings.Contains(stderr, "exists") {
			t.Errorf("again: exit status %d: %s", status, stderr)
		}
	})
	s.stop(t)
	t.Run("no server", func(t *testing.T) {
		files := bundle(t)
		contains(t, files, map[string]string{
			"config.yaml": "(masked)", "store.json": `"id"`, "volumes.json": `"src"`, "check.json": "{",
			"MISSING.txt": "goroutines: no odx serves the store",
		})
		if _, ok := files["status.json"]; ok {
			t.Error("there is a status of no server")
		}
	})
}

// TestBundle_Masks: a secret that is in a part by some way is not in the bundle.
func TestBundle_Masks(t *testing.T) {
	b := newBundle([][]byte{[]byte(supportSecret)})
	b.add("log.txt", []byte("the secret is "+supportSecret+"!\n"))
	var archive bytes.Buffer
	if err := b.write(&archive); err != nil {
		t.Fatal(err)
	}
	if got := untar(t, archive.Bytes())["log.txt"]; got != "the secret is (masked)!\n" {
		t.Errorf("log.txt is %q", got)
	}
}
