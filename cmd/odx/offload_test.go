package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "odx/api/v1"
)

func TestTokenCommands(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		file := filepath.Join(t.TempDir(), "token")
		text, _, status := output(t, "token", "create", "src:4KiB+32KiB", "--timeout", "5m", "--config", path)
		if status != 0 {
			t.Fatal("no token")
		}
		text = strings.TrimSpace(text)
		stdout, _, _ := output(t, "token", "create", "src", "--json", "--out", file, "--priority", "2", "--config", path)
		var whole v1.MadeToken
		if err := json.Unmarshal([]byte(stdout), &whole); err != nil || whole.Length != 64<<20 || whole.Priority != 2 {
			t.Errorf("%v: %s", err, stdout)
		}
		script(t, path, []command{
			{args: "volume create new 1MiB", stdout: "volume new: made, 1MiB\n"},
			{args: "token write " + text + " new:8KiB --from 4KiB", stdout: "volume new: 28672 bytes written at 8192\n"},
			{args: "token write @" + file + " new:0+4KiB --json", stdout: "{\n  \"bytes\": 4096,\n  \"remaining\": 0\n}\n"},
			{args: "token delete " + whole.ID, stdout: "token " + whole.ID + ": revoked\n"},
			{args: "token write @" + file + " new", stderr: "odx: after 0 bytes: token was revoked\n", status: 1},
			{args: "token show " + whole.ID, stderr: "odx: token " + whole.ID + ": token was revoked\n", status: 1},
			{args: "token write nonsense new", stderr: "odx: not a token: neither 512 bytes nor 512 bytes in base64; write @FILE for a file\n", status: 2},
			{args: "token create src:1GB", stderr: "odx: \"src:1GB\": invalid size \"1GB\"; use bytes, or a number with KiB, MiB, GiB or TiB, for example 10GiB; write VOLUME:OFFSET+LENGTH, for example src:1GiB+256MiB\n", status: 2},
		})
		piped, stderr, status := output(t, "token", "create", "src:0+4KiB", "--out", "-", "--config", path)
		if status != 0 || len(piped) != 512 {
			t.Errorf("token to standard output: %d, %d bytes\n%s", status, len(piped), stderr)
		}
		if stdout, stderr, status := input(t, []byte(piped), "token", "read", "@-", "--config", path); status != 0 || stdout != string(block(0)) {
			t.Errorf("token of standard input: %d, %d bytes\n%s", status, len(stdout), stderr)
		}
		if _, stderr, status := input(t, []byte(piped), "token", "delete", "@-", "--config", path); status != 0 {
			t.Error(stderr)
		}
		both, _, _ := output(t, "token", "create", "src:0+8KiB", "--providers", "hash,checksum", "--config", path)
		hash, proof, _ := strings.Cut(strings.TrimSpace(both), "\n")
		stdout, stderr, status = output(t, "token", "read", hash, "4096+64", "--config", path)
		if status != 0 || stdout != string(block(1)[:64]) {
			t.Errorf("read %q\n%s", stdout, stderr)
		}
		if stdout, _, _ = output(t, "token", "read", hash, "--config", path); stdout != string(block(0))+string(block(1)) {
			t.Errorf("read %d bytes in all", len(stdout))
		}
		script(t, path, []command{
			{args: "token verify " + proof + " src", stdout: "the checksum matches\n"},
			{args: "token verify " + proof + " src:4KiB", stderr: "odx: checksum mismatch\n", status: 1},
		})
		list, _, _ := output(t, "token", "list", "--config", path)
		if !regexp.MustCompile(`(?s)^ID +BYTES .*\n[0-9a-f]{16}  32768  src     -          TIME  TIME  1     point in time copy - default\n$`).MatchString(masked(list, filepath.Dir(path))) {
			t.Errorf("the list is\n%s", list)
		}
		onCopy(t, path, "new", func(got []byte) {
			want := bytes.Join([][]byte{block(0), make([]byte, 4096), block(2), block(3)}, nil)
			if !bytes.Equal(got[:len(want)], want) {
				t.Error("volume new has other data")
			}
		})
	})
}

// onCopy copies a volume to a file and calls do with what is in it.
func onCopy(t *testing.T, path, volume string, do func(data []byte)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), volume)
	if _, stderr, status := output(t, "copy", volume, file, "--config", path); status != 0 {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	do(data)
}

// TestCopyCommand copies between every two kinds of disks.
func TestCopyCommand(t *testing.T) {
	const text = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 16MiB}
      - {lun: 1, volume: dst, size: 16MiB, block_size: 4096}
      - {lun: 2, backing: "file:plain.img", size: 16MiB}
`
	start := func() (path, url string) {
		path = writeConfig(t, text)
		return path, "iscsi://" + startServer(t, odx("serve", "--config", path)).portal + "/iqn.2026-11.example.odx:disks/"
	}
	path, here := start()
	there, elsewhere := start()
	dir := t.TempDir()
	var data []byte
	for i := range 512 {
		data = append(data, block(i)...)
	}
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct{ from, to, how string }{
		{raw, "src", "0 B by token, 2.0 MiB read and written (the source makes no tokens)"},
		{"src", "fresh --create", "by token: no bytes moved"},
		{here + "0", here + "1", "by token: no bytes moved"},
		{here + "0", here + "2", "by token: the server moved the bytes"},
		{here + "2", here + "1", "by token: the server moved the bytes"},
		{"src", here + "1", "by token: no bytes moved"},
		{here + "1", "src", "by token: no bytes moved"},
		{here + "0", elsewhere + "1", "0 B by token, 2.0 MiB read and written, the rest zeros (write with a token: WRITE USING TOKEN: the logical unit answered ILLEGAL REQUEST, 23/"},
		{"src", "dst --no-token", "0 B by token, 2.0 MiB read and written, the rest zeros (tokens were not wanted)"},
		{elsewhere + "1", filepath.Join(dir, "out"), "0 B by token, 2.0 MiB read and written, the rest zeros (the destination takes no tokens)"},
	} {
		args := append([]string{"copy", tt.from}, strings.Fields(tt.to)...)
		stdout, stderr, status := output(t, append(args, "--config", path)...)
		if status != 0 || stderr != "" || !strings.Contains(stdout, tt.how) {
			t.Errorf("%d: copy %s %s: %d\n%s%s", i, tt.from, tt.to, status, stdout, stderr)
		}
	}
	for _, path := range []string{path, there} {
		if list, stderr, status := output(t, "token", "list", "--config", path); status != 0 || strings.Count(list, "\n") != 1 {
			t.Errorf("tokens are left:\n%s%s", list, stderr)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil || len(got) != 16<<20 || !bytes.Equal(got[:len(data)], data) || !bytes.Equal(got[len(data):], make([]byte, 14<<20)) {
		t.Errorf("what came back in the end is not what went in (%d bytes, %v)", len(got), err)
	}
	stdout, _, status := output(t, "copy", "src", "dst", "--json", "--config", path)
	var r struct{ Bytes, Token_bytes, Moved_bytes int64 }
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || status != 0 || r.Bytes != 16<<20 || r.Token_bytes != r.Bytes || r.Moved_bytes != 0 {
		t.Errorf("%v: %s", err, stdout)
	}
	script(t, path, []command{
		{args: "copy src src", stderr: "odx: src is both source and destination\n", status: 2},
		{args: "copy none dst", stderr: "odx: volume none: the store has no such volume; ./none is a file of this machine, file:none one of the store\n", status: 1},
		{args: "copy src none", stderr: "odx: volume none: the store has no such volume; --create creates it, ./none is a file of this machine, file:none one of the store\n", status: 1},
	})
	stdout, stderr, status := output(t, "doctor", here+"0", here+"1", "--scratch", "1MiB+1MiB")
	if status != 0 || !strings.HasSuffix(stdout, "copies between these LUNs are offloaded\n") {
		t.Errorf("doctor: %d\n%s%s", status, stdout, stderr)
	}
	stdout, stderr, status = output(t, "doctor", here+"0", elsewhere+"1")
	if status != 4 || !strings.Contains(stdout, "NOT OK") || stderr != "odx: a copy would not be offloaded\n" {
		t.Errorf("doctor of two servers: %d\n%s%s", status, stdout, stderr)
	}
	stdout, _, status = output(t, "doctor", here+"0", here+"1", "--json")
	var findings []map[string]any
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil || status != 0 || len(findings) < 8 {
		t.Errorf("doctor in JSON: %d, %v\n%s", status, err, stdout)
	}
}

// TestCopyCommand_Sparse: runs of zeros that are longer than one WRITE SAME can be
// reach a LUN of another server, and replace what was there.
func TestCopyCommand_Sparse(t *testing.T) {
	path := writeConfig(t, strings.ReplaceAll(config, "64MiB", "400MiB"))
	url := "iscsi://" + startServer(t, odx("serve", "--config", path)).portal + "/iqn.2026-11.example.odx:disks/0"
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, bytes.Repeat(block(3), 16384), 0o600); err != nil { // 64 MiB of data
		t.Fatal(err)
	}
	if _, stderr, status := output(t, "copy", raw, url); status != 0 {
		t.Fatal(stderr)
	}
	want := make([]byte, 400<<20)
	copy(want[390<<20:], block(5))
	if err := errors.Join(os.Truncate(raw, 0), os.Truncate(raw, int64(len(want)))); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(block(5), 390<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := output(t, "copy", raw, url); status != 0 || !strings.Contains(stdout, "4.0 KiB read and written") {
		t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
	}
	onCopy(t, path, "src", func(got []byte) {
		if !bytes.Equal(got, want) {
			t.Error("the LUN differs from the file")
		}
	})
}
