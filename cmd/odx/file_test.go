package main

import (
	"bytes"
	"encoding/json"
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
		for _, flag := range []string{"", "--overwrite"} { // the second time in place of the first
			args := append([]string{"file", "put", local, "images/a.raw", "--config", path}, strings.Fields(flag)...)
			stdout, stderr, status := output(t, args...)
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
		for _, args := range [][]string{{"file", "put", local, "images/b"}, {"file", "get", "images/b", back}, {"copy", "src", "file:images/b"}, {"copy", "file:images/b", back}} {
			args = append(args, "--config", path)
			if _, stderr, status := output(t, args...); status != 1 || !strings.HasSuffix(stderr, ": file exists; --overwrite replaces it\n") {
				t.Errorf("%v: %d, %s", args, status, stderr)
			}
			if _, stderr, status := output(t, append(args, "--overwrite")...); status != 0 {
				t.Errorf("%v: %s", args, stderr)
			}
		}
		if _, stderr, status := output(t, "file", "put", local, "images/b", "--overwrite", "--config", path); status != 0 {
			t.Error(stderr)
		}
		if stdout, stderr, status := output(t, "file", "get", "images/b", "-", "--config", path); status != 0 || stdout != string(data) || !strings.Contains(stderr, "13 KiB read and written") {
			t.Errorf("get to standard output: %d, %d bytes\n%s", status, len(stdout), stderr)
		}
		if _, stderr, status := input(t, data[:777], "file", "put", "-", "images/b", "--overwrite", "--config", path); status != 0 {
			t.Errorf("put of standard input: %d\n%s", status, stderr)
		}
		if stdout, stderr, status := output(t, "copy", "file:images/b", "-", "--config", path); status != 0 || stdout != string(data[:777]) {
			t.Errorf("copy to standard output: %d, %d bytes\n%s", status, len(stdout), stderr)
		}
		if _, stderr, status := input(t, block(9), "copy", "-", "src", "--config", path); status != 0 {
			t.Errorf("copy of standard input: %d\n%s", status, stderr)
		}
		onCopy(t, path, "src", func(got []byte) {
			if !bytes.Equal(got[:4096], block(9)) {
				t.Error("src does not begin with what came")
			}
		})
		script(t, path, []command{{args: "file rm images/a.raw images/b disk", stdout: "deleted: images/a.raw images/b disk\n"}, {args: "file list --json", stdout: "[]\n"}})
	})
}

// Copies of files by token store nothing: the store does not look for duplicates
// here, so bytes that were written again would be live twice.
func TestFilesAreCopiedByToken(t *testing.T) {
	path := writeConfig(t, config+"store: {dedup: false}\n")
	defer startServer(t, odx("serve", "--config", path)).stop(t)
	raw := filepath.Join(t.TempDir(), "raw")
	data := bytes.Repeat(block(7), 512)
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		t.Fatal(err)
	}
	live := func() int64 {
		t.Helper()
		stdout, stderr, _ := output(t, "store", "info", "--json", "--config", path)
		var info struct {
			LiveBytes int64 `json:"live_bytes"`
		}
		if err := json.Unmarshal([]byte(stdout), &info); err != nil {
			t.Fatal(err, stderr)
		}
		return info.LiveBytes
	}
	script(t, path, []command{
		{args: "file put " + raw + " a", stdout: "2.0 MiB in TIME, RATE, 0 B by token, 2.0 MiB read and written (the source makes no tokens)\n"},
	})
	before := live()
	if before < int64(len(data)) {
		t.Fatalf("%d bytes are live", before)
	}
	token := filepath.Join(t.TempDir(), "token")
	script(t, path, []command{
		{args: "copy file:a file:b", stdout: "2.0 MiB in TIME, by token: no bytes moved\n"},
		{args: "copy file:a src", stdout: "2.0 MiB in TIME, by token: no bytes moved\n"},
		{args: "copy src file:c", stdout: "64 MiB in TIME, by token: no bytes moved\n"},
		{args: "volume create v 16MiB", stdout: "volume v: made, 16MiB\n"},
	})
	for _, kind := range []string{"default", "persistent", "change-vulnerable", "on-reference"} {
		if _, stderr, status := output(t, "token", "create", "file:a", "--type", kind, "--out", token, "--config", path); status != 0 {
			t.Fatal(stderr)
		}
		script(t, path, []command{
			{args: "token write @" + token + " file:b", stdout: "file b: 2097152 bytes written at 0\n"},
			{args: "token write @" + token + " v:1MiB", stdout: "volume v: 2097152 bytes written at 1048576\n"},
		})
	}
	if after := live(); after != before {
		t.Errorf("copies have stored %d bytes", after-before)
	}
	onCopy(t, path, "file:b", func(got []byte) {
		if !bytes.Equal(got, data) {
			t.Error("file b has other data")
		}
	})
	onCopy(t, path, "v", func(got []byte) {
		if !bytes.Equal(got[1<<20:][:len(data)], data) {
			t.Error("volume v has other data")
		}
	})
}
