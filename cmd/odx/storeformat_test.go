package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/initiator"
	"odx/internal/kit/oldstores"
)

// sums has the SHA-256 of each file of a directory.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// run runs odx and returns what it says; it has to succeed.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, status := output(t, args...)
	if status != 0 {
		t.Fatalf("odx %s: exit status %d: %s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

// TestOldStores: commands that look at a store of an older version change no byte
// of it, serving it says what to do, and after that it has everything, tokens,
// virtual disks, reservations and mode pages among it.
func TestOldStores(t *testing.T) {
	for _, store := range oldstores.Stores(t) {
		t.Run(store.Name, func(t *testing.T) {
			t.Parallel()
			dir := store.Unpack(t)
			path := filepath.Join(dir, "odx.yaml")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.Replace(text, []byte("127.0.0.1:43260"), []byte("127.0.0.1:0"), 1)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			before := sums(t, dir)
			for _, args := range []string{"store info", "store check", "volume list", "file list"} {
				succeed(t, append(strings.Fields(args), "--config", path)...)
			}
			_, stderr, status := output(t, "serve", "--config", path)
			if want := "the store has format 2, this program serves format 3: stop what uses it, and run odx store upgrade"; status != 1 || !strings.Contains(stderr, want) {
				t.Errorf("serve: exit status %d, %s, want %s", status, stderr, want)
			}
			if after := sums(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("looking at the store has changed it: %v, was %v", after, before)
			}
			if got, want := succeed(t, "store", "upgrade", "--config", path), "now has format 3, before 2\n"; !strings.HasSuffix(got, want) {
				t.Errorf("upgrade says %s, want %s", got, want)
			}
			lookAtUpgraded(t, &store, path)
			s := startServer(t, odx("serve", "--config", path))
			s.stop(t)
		})
	}
}

func lookAtUpgraded(t *testing.T, store *oldstores.Store, path string) {
	for _, tok := range store.Tokens {
		file := filepath.Join(t.TempDir(), tok.Name)
		if err := os.WriteFile(file, tok.Token, 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, status := output(t, "token", "read", "@"+file, "--config", path)
		sum := sha256.Sum256([]byte(stdout))
		if tok.SHA256 == "" && (status == 0 || !strings.Contains(stderr, "revoked")) {
			t.Errorf("token %s, which was revoked: exit status %d, %s", tok.Name, status, stderr)
		}
		if tok.SHA256 != "" && hex.EncodeToString(sum[:]) != tok.SHA256 {
			t.Errorf("token %s reads as %d other bytes, %s", tok.Name, len(stdout), stderr)
		}
	}
	for disk, want := range store.Disks {
		out := filepath.Join(t.TempDir(), "disk.raw")
		succeed(t, "vhd", "convert", disk, "out.raw", "--config", path)
		succeed(t, "file", "get", "out.raw", out, "--config", path)
		succeed(t, "file", "rm", "out.raw", "--config", path)
		b, err := os.ReadFile(out)
		if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != want {
			t.Errorf("virtual disk %s shows something else: %v", disk, err)
		}
	}
	onStore(t, path, func(t *testing.T, s *backstore.Store) {
		for _, r := range store.Records {
			key, err := strconv.Unquote(r.Key)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(key, "token/") || strings.HasPrefix(key, "view/") {
				continue // tokens were used just now
			}
			value, err := s.GetRecord([]byte(key))
			if sum := sha256.Sum256(value); err != nil || hex.EncodeToString(sum[:]) != r.SHA256 {
				t.Errorf("record %s: %q, %v", r.Key, value, err)
			}
		}
	})
}

// TestNewIdentity: the volumes of a copy have other identities once it has one of
// its own.
func TestNewIdentity(t *testing.T) {
	path := createStore(t)
	identities := func() string {
		var volumes []struct{ Name, ID string }
		if err := json.Unmarshal([]byte(succeed(t, "volume", "list", "--json", "--config", path)), &volumes); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(volumes, infoOf(t, path).ID)
	}
	first := identities()
	succeed(t, "store", "new-identity", "--keep", "--config", path)
	if same := identities(); same != first {
		t.Errorf("with --keep: %s, was %s", same, first)
	}
	out := succeed(t, "store", "new-identity", "--config", path)
	if !strings.Contains(out, "identity") {
		t.Errorf("new-identity says %q", out)
	}
	other := identities()
	s := startServer(t, odx("serve", "--config", path))
	s.stop(t)
	if stderr := s.stderr.String(); strings.Contains(stderr, "another disk than before") {
		t.Errorf("a store with a new identity is served with a warning: %s", stderr)
	}
	if other == first || !strings.Contains(other, strings.TrimSpace(out[strings.LastIndex(out, " ")+1:])) {
		t.Errorf("%s, was %s, and new-identity says %s", other, first, out)
	}
}

// TestScrubTellsWhatOpeningMended: a scrub without a server opens the store, which
// mends what is damaged in one copy before the scrub can see it.
func TestScrubTellsWhatOpeningMended(t *testing.T) {
	path := createStore(t)
	data := filepath.Join(filepath.Dir(path), "data")
	runs, err := filepath.Glob(filepath.Join(data, "checkpoints", "*.rows"))
	if err != nil || len(runs) == 0 {
		t.Fatal(runs, err)
	}
	for _, name := range []string{runs[0], filepath.Join(data, "store")} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[20] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, _, status := output(t, "store", "scrub", "--config", path)
		if status != 0 || !strings.Contains(out, "nothing is damaged any more") || !strings.Contains(out, "from its other copy: "+name+": ") {
			t.Errorf("%s was damaged: exit status %d, %s", name, status, out)
		}
		if out := succeed(t, "store", "scrub", "--config", path); strings.Contains(out, "mended") {
			t.Errorf("the next scrub: %s", out)
		}
	}
}

// TestLockedStore: a command about one store does not say to choose another one.
func TestLockedStore(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	for _, args := range [][]string{{"dump"}, {"repair", "--in-place"}, {"upgrade"}, {"new-identity"}} {
		_, stderr, status := output(t, append(append([]string{"store"}, args...), "--config", path)...)
		if status == 0 || strings.Contains(stderr, "another directory") || !strings.Contains(stderr, "in use by another process") {
			t.Errorf("%v of a store that is served: exit status %d, %s", args, status, stderr)
		}
	}
	s.stop(t)
}

// TestRepairCommand: a store with a missing segment is repaired, in place and into
// another directory; what is lost is named, and all else is served.
func TestRepairCommand(t *testing.T) {
	path := createStore(t)
	onStore(t, path, fillSrc(40))
	data := filepath.Join(filepath.Dir(path), "data")
	segments, err := filepath.Glob(filepath.Join(data, "segments", "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	// One that is damaged first, at the third of its blocks of data.
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[3*4096+100] ^= 1
	if err := os.WriteFile(segments[0], bad, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := succeed(t, "store", "repair", "--config", path, "--to", filepath.Join(t.TempDir(), "damaged"))
	if !strings.Contains(damaged, "lost: volume src, 4096 bytes at 8192: segment 00000001: ") || !strings.Contains(damaged, ": 4.0 KiB of them read as errors") {
		t.Errorf("repair of a damaged segment says\n%s", damaged)
	}
	skipped := succeed(t, "store", "repair", "--config", path, "--skip-data", "--to", filepath.Join(t.TempDir(), "skipped"))
	if !strings.Contains(skipped, "the data was not read") {
		t.Errorf("repair that does not read data says\n%s", skipped)
	}
	if err := os.Remove(segments[0]); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := output(t, "store", "repair", "--config", path); status == 0 || !strings.Contains(stderr, "in-place") {
		t.Errorf("without --to or --in-place: exit status %d, %s", status, stderr)
	}
	to := filepath.Join(t.TempDir(), "repaired")
	want := "lost: segment 00000001: stored data is corrupt: its file is missing; 40 blocks of data lie in it\n" +
		"lost: volume src, 163840 bytes at 0: segment 00000001 is missing or cut short\n" +
		"the store in DIR has 2 volumes and files, 0 snapshots, 5 records: 160 KiB of them read as errors\n"
	for _, args := range [][]string{{"--to", to}, {"--in-place"}} {
		out := succeed(t, append([]string{"store", "repair", "--config", path}, args...)...)
		for _, dir := range []string{to, data} {
			out = strings.ReplaceAll(out, dir, "DIR")
		}
		if out != want {
			t.Errorf("repair %s says\n%swant\n%s", args[0], out, want)
		}
	}
	succeed(t, "store", "check", "--config", path)
	onStore(t, path, func(t *testing.T, s *backstore.Store) {
		v, err := s.Volume("src")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if err := v.ReadAt(t.Context(), b, 0); !errors.Is(err, blockdev.ErrCorrupt) {
			t.Errorf("a block that is lost: %v, want ErrCorrupt", err)
		}
		if err := v.ReadAt(t.Context(), b, 40*4096); err != nil {
			t.Error(err)
		}
	})
}

// TestPrintRepaired: what a damaged journal costs is printed by record and range.
func TestPrintRepaired(t *testing.T) {
	write := backstore.Change{Kind: "write", What: "volume src", Offset: 4096, Length: 8192}
	var b strings.Builder
	err := printRepaired(&b, "DIR", backstore.Repaired{DataRead: true, MoreUnused: 2, Unused: []backstore.UnusedChange{
		{FirstLSN: 7, LastLSN: 7, Records: 1, Change: write},
		{FirstLSN: 8, LastLSN: 9, Records: 2, Change: write},
		{FirstLSN: 8, LastLSN: 12, Records: 2, Change: backstore.Change{Kind: "resize volume", What: "file f", Detail: "to 5 bytes"}},
	}})
	want := "not used: record 7: write, volume src, 8192 bytes at 4096\n" +
		"not used: records 8 to 9: write, volume src, 8192 bytes at 4096\n" +
		"not used: 2 of records 8 to 12: resize volume, file f, to 5 bytes\n" +
		"not used: 2 more changes\n" +
		"the store in DIR has 0 volumes and files, 0 snapshots, 0 records: all of their data was read and verified\n"
	if err != nil || b.String() != want {
		t.Errorf("%v\n%swant\n%s", err, b.String(), want)
	}
}

// TestRescue: what is left of a damaged store is served, cannot be written, and stays
// as it is.
func TestRescue(t *testing.T) {
	path := createStore(t)
	onStore(t, path, fillSrc(40))
	data := filepath.Join(filepath.Dir(path), "data")
	runs, err := filepath.Glob(filepath.Join(data, "segments", "*.seg"))
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	// The first blocks are lost, the others are there.
	f, err := os.OpenFile(runs[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 8*4096), 4096)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	before := sums(t, data)
	s := startServer(t, odx("serve", "--rescue", "--config", path))
	ctx := t.Context()
	u, err := initiator.ParseURL(strings.Fields(s.lines[1])[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := initiator.Open(ctx, initiator.Options{InitiatorName: "iqn.2026-11.example.host:a", URL: u})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	var sense *initiator.SenseError
	if err := d.ReadAt(ctx, p, 0); !errors.As(err, &sense) || sense.Key != 3 {
		t.Errorf("a block that is damaged: %v, want MEDIUM ERROR", err)
	}
	if err := d.ReadAt(ctx, p, 39*4096); err != nil || !bytes.Equal(p, block(39)) {
		t.Errorf("a block that is whole: %v", err)
	}
	if err := d.WriteAt(ctx, p, 0); !errors.As(err, &sense) || sense.Key != 7 {
		t.Errorf("a write: %v, want DATA PROTECT", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	s.stop(t)
	if after := sums(t, data); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("serving it has changed it: %v, was %v", after, before)
	}
}

// TestDumpCommand prints stores of the oldest format, as lines and as JSON.
func TestDumpCommand(t *testing.T) {
	store := oldstores.Stores(t)[0]
	path := filepath.Join(store.Unpack(t), "odx.yaml")
	text := succeed(t, "store", "dump", "--config", path)
	for _, want := range []string{"superblock ", `volumes v1 {"created":`, "nodes n", "extents e0 ", "usage u", "journal ", `"kind":"write"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	lines := strings.Split(strings.TrimSpace(succeed(t, "store", "dump", "records", "--json", "--config", path)), "\n")
	for _, line := range lines {
		var item v1.DumpItem
		if err := json.Unmarshal([]byte(line), &item); err != nil || item.Part != "records" || item.Key == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, stderr, status := output(t, "store", "dump", "blocks", "--config", path); status == 0 || !strings.Contains(stderr, `no part "blocks"`) {
		t.Errorf("an unknown part: exit status %d, %s", status, stderr)
	}
}
