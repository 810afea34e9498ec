package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFileCommands(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		dir := t.TempDir()
		data := bytes.Repeat([]byte("odd length "), 1234)
		local, back := filepath.Join(dir, "local"), filepath.Join(dir, "back")
		if err := os.WriteFile(local, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time in place of the first
			stdout, stderr, status := output(t, "file", "put", local, "images/a.raw", "--config", path)
			if status != 0 || !strings.Contains(stdout, "13 KiB read and written") {
				t.Fatalf("put: %d\n%s%s", status, stdout, stderr)
			}
		}
		script(t, path, []command{
			{args: "file cp images/a.raw b", stdout: "file images/a.raw: copied to b\n"},
			{args: "file mv b images/b", stdout: "file b: renamed to images/b\n"},
			{args: "file cp none c", stderr: "odx: file none: not found\n", status: 1},
			{args: "file rm none", stderr: "odx: file none: not found\n", status: 1},
			{args: "file list images/b", stdout: "BYTES  MADE                 NAME\n13574  TIME  images/b\n"},
		})
		stdout, _, status := output(t, "copy", "src", "file:disk", "--config", path)
		if status != 0 || !strings.Contains(stdout, "by token: no bytes moved") {
			t.Errorf("volume to file: %d\n%s", status, stdout)
		}
		stdout, _, status = output(t, "copy", "file:images/b", "src", "--config", path)
		if status != 0 || !strings.Contains(stdout, "13 KiB by token, 512 B read and written") {
			t.Errorf("file to volume: %d\n%s", status, stdout)
		}
		if _, stderr, status := output(t, "file", "get", "images/b", back, "--config", path); status != 0 {
			t.Error(stderr)
		}
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
			t.Errorf("what came back is not what was put (%d bytes, %v)", len(got), err)
		}
		script(t, path, []command{{args: "file rm images/a.raw images/b disk", stdout: "deleted: images/a.raw images/b disk\n"}, {args: "file list --json", stdout: "[]\n"}})
	})
}
