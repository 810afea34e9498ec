package survival

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/internal/kit/oldstores"
)

func options(dir string) backstore.Options {
	return backstore.Options{Dir: filepath.Join(dir, "data"), Log: logs.Discard(), CacheBytes: 32 << 20}
}

func open(t *testing.T, dir string, readOnly bool) *backstore.Store {
	t.Helper()
	o := options(dir)
	o.ReadOnly = readOnly
	s, err := backstore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStores: every store opens for reading, unchanged, is upgraded, and has what
// was put into it, also when it is opened again.
func TestStores(t *testing.T) {
	for _, store := range oldstores.Stores(t) {
		t.Run(store.Name, func(t *testing.T) {
			dir := store.Unpack(t)
			before := listing(t, dir)
			s := open(t, dir, true)
			compareStore(t, &store, s)
			wantReadOnly(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("reading has changed\n%s\nto\n%s", before, after)
			}
			var old *backstore.FormatError
			if _, err := backstore.Open(context.Background(), options(dir)); !errors.As(err, &old) || old.Version != 2 {
				t.Errorf("opening it for writing: %v, want a FormatError for format 2", err)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("a refusal has changed\n%s\nto\n%s", before, after)
			}
			u, err := backstore.Upgrade(context.Background(), options(dir))
			if err != nil || u.From != 2 || u.To != 3 || u.Rows == 0 {
				t.Fatalf("upgrade: %+v, %v", u, err)
			}
			for range 2 {
				s := open(t, dir, false)
				compareStore(t, &store, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "data", "metadata")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the old metadata is still there: %v", err)
			}
			if u, err = backstore.Upgrade(context.Background(), options(dir)); err != nil || u.From != 3 {
				t.Errorf("a second upgrade: %+v, %v", u, err)
			}
		})
	}
}

func wantReadOnly(t *testing.T, s *backstore.Store) {
	t.Helper()
	ctx := context.Background()
	v := s.Volumes()[0]
	_, err := s.CreateVolume(ctx, "more", 1<<20)
	for what, err := range map[string]error{
		"create": err, "write": v.WriteAt(ctx, make([]byte, 4096), 0), "unmap": v.Unmap(ctx, 0, 4096),
		"delete": s.DeleteVolume(ctx, v.Name()), "clean": s.Clean(ctx),
	} {
		if !errors.Is(err, backstore.ErrStoreReadOnly) {
			t.Errorf("%s: %v, want ErrStoreReadOnly", what, err)
		}
	}
}

// listing has name, length, time and content of all files of a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, f)
		fmt.Fprintf(&b, "%s %d %v %x\n", path, info.Size(), info.ModTime(), h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// compareStore proves what is in a store.
func compareStore(t *testing.T, want *oldstores.Store, s *backstore.Store) {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
	if id := fmt.Sprintf("%x", s.ID()); id != want.StoreID || s.DedupUnit() != want.DedupUnit {
		t.Errorf("store %s with units of %d bytes, want %s, %d", id, s.DedupUnit(), want.StoreID, want.DedupUnit)
	}
	all := append(s.Volumes(), s.Files()...)
	if len(all) != len(want.Objects) {
		t.Errorf("%d volumes and files, want %d", len(all), len(want.Objects))
	}
	for i, v := range all {
		if i == len(want.Objects) {
			break
		}
		origin, _ := v.Origin()
		got := oldstores.Object{Name: v.Name(), File: v.IsFile(), ReadOnly: v.ReadOnly(), ID: fmt.Sprintf("%x", v.ID()), Size: v.Size(), Origin: origin, SHA256: sum(t, v)}
		if got != want.Objects[i] {
			t.Errorf("got %+v, want %+v", got, want.Objects[i])
		}
	}
	var records []oldstores.Record
	err := s.ScanRecords(nil, func(key, value []byte) error {
		h := sha256.Sum256(value)
		records = append(records, oldstores.Record{Key: fmt.Sprintf("%q", key), SHA256: hex.EncodeToString(h[:])})
		return nil
	})
	if err != nil || fmt.Sprint(records) != fmt.Sprint(want.Records) {
		t.Errorf("records %v, %v, want %v", records, err, want.Records)
	}
}

// sum returns the SHA-256 of all bytes of a volume.
func sum(t *testing.T, v *backstore.Volume) string {
	t.Helper()
	h := sha256.New()
	for off, p := int64(0), make([]byte, 1<<20); off < v.Size(); off += int64(len(p)) {
		p = p[:min(int64(len(p)), v.Size()-off)]
		if err := v.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestKilledUpgrade kills a process that upgrades a store: what is left has the old
// format or the new one, and everything in it.
func TestKilledUpgrade(t *testing.T) {
	if dir := os.Getenv("UPGRADE_DIR"); dir != "" {
		_, err := backstore.Upgrade(context.Background(), options(dir))
		fmt.Println("upgraded", err)
		os.Exit(0)
	}
	store := oldstores.Stores(t)[2]
	rng := rand.New(rand.NewPCG(1, 1))
	longest := time.Duration(0)
	for round := range 6 {
		dir := store.Unpack(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledUpgrade$")
		cmd.Env = append(os.Environ(), "UPGRADE_DIR="+dir)
		start := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if round > 0 { // the first one says how long it takes
			timer := time.AfterFunc(time.Duration(rng.Int64N(int64(longest))), func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			timer.Stop()
		} else if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		} else {
			longest = time.Since(start)
		}
		s, err := backstore.Open(context.Background(), options(dir))
		if old := (*backstore.FormatError)(nil); errors.As(err, &old) {
			if _, err := backstore.Upgrade(context.Background(), options(dir)); err != nil {
				t.Fatal(err)
			}
			s, err = backstore.Open(context.Background(), options(dir))
		}
		if err != nil {
			t.Fatal(err)
		}
		compareStore(t, &store, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
