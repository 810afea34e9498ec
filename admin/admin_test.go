package admin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/vhd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disks is a configuration with two LUNs.
const disks = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB, block_size: 4096}
`

// parse reads disks as the configuration in dir.
func parse(t *testing.T, dir string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte(disks))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// open opens a store, which nothing serves, until the test ends.
func open(t *testing.T, cfg *conf.Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg, logs.Discard(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func second[T any](_ T, err error) error { return err }

// TestInspect_NoStore: asking about a store does not make it.
func TestInspect_NoStore(t *testing.T) {
	cfg := parse(t, t.TempDir())
	err := Inspect(t.Context(), cfg, logs.Discard(), func(*Store) error { t.Error("called"); return nil })
	if err == nil || !strings.Contains(err.Error(), "there is no store") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the store: %v", err)
	}
}

// TestStore_Volumes makes, clones and deletes volumes next to those of the
// configuration.
func TestStore_Volumes(t *testing.T) {
	const iqn = "iqn.2026-11.example.odx:disks"
	ctx := t.Context()
	cfg := parse(t, t.TempDir())
	s := open(t, cfg)
	for name, size := range map[string]int64{"src": 64 << 20, "dst": 64 << 20, "third": 1 << 20} {
		if _, err := s.CreateVolume(ctx, name, size); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.store.CreateVolume(ctx, ".hidden", 1<<20); err != nil {
		t.Fatal(err)
	}
	snap, err := s.SnapshotVolume(ctx, "src", "monday")
	if err != nil || !snap.ReadOnly || snap.Origin != "src" || snap.SizeBytes != 64<<20 || snap.Created.IsZero() {
		t.Errorf("snapshot %+v, %v", snap, err)
	}
	if clone, err := s.CloneVolume(ctx, "monday", "restored"); err != nil || clone.ReadOnly || clone.Origin != "monday" {
		t.Errorf("clone %+v, %v", clone, err)
	}
	var list []string
	for _, v := range s.volumes() {
		list = append(list, fmt.Sprint(v.Name, v.LUNs))
	}
	if got, want := strings.Join(list, " "), "dst["+iqn+"/1] monday[] restored[] src["+iqn+"/0] third[]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	err = s.DeleteVolume(ctx, "src")
	want := "volume src: in use as LUN 0 of " + iqn + "; take that out of the configuration (" + cfg.File + ", line 7), reload odx serve if it runs, and try again"
	if !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for name, err := range map[string]error{
		"delete none":   s.DeleteVolume(ctx, "none"),
		"delete hidden": s.DeleteVolume(ctx, ".hidden"),
		"clone none":    second(s.CloneVolume(ctx, "none", "x")),
		"clone hidden":  second(s.CloneVolume(ctx, ".hidden", "x")),
	} {
		if !errors.Is(err, backstore.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"create":      second(s.CreateVolume(ctx, "third", 1<<20)),
		"clone":       second(s.CloneVolume(ctx, "src", "third")),
		"snapshot":    second(s.SnapshotVolume(ctx, "src", "third")),
		"onto itself": second(s.CloneVolume(ctx, "src", "src")),
	} {
		if !errors.Is(err, backstore.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"name":          second(s.CreateVolume(ctx, "no/name", 1<<20)),
		"hidden name":   second(s.SnapshotVolume(ctx, "src", ".x")),
		"size":          second(s.CreateVolume(ctx, "x", 1000)),
		"grow snapshot": second(s.ResizeVolume(ctx, "monday", 1000)),
	} {
		if !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.DeleteVolume(ctx, "third"); err != nil {
		t.Error(err)
	}
	if err := s.DeleteVolume(ctx, "monday"); err != nil {
		t.Error(err)
	}
	var left []string
	for _, v := range s.store.Volumes() {
		left = append(left, v.Name())
	}
	if got := strings.Join(left, " "); got != ".hidden dst restored src" {
		t.Errorf("left are %s", got)
	}
}

// TestStore_NoServer: everything but what is of a server works on a store that nothing
// serves. Its managers are opened once, for concurrent callers too.
func TestStore_NoServer(t *testing.T) {
	ctx := t.Context()
	s := open(t, parse(t, t.TempDir()))
	if _, err := s.CreateVolume(ctx, "src", 1<<20); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("odx!"), 1<<10)
	if err := s.WriteVolume(ctx, "src", data, 8192); err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	for n := range 4 {
		asking.Go(func() {
			r := vhd.Request{Operation: vhd.Create, Destination: fmt.Sprintf("%d.vhdx", n), Size: 64 << 20}
			if _, err := s.ChangeDisk(ctx, r, nil); err != nil {
				t.Error(err)
			}
		})
		asking.Go(func() {
			if _, err := s.Tokens(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()

	made, err := s.CreateToken(ctx, TokenRequest{Volume: "src", Offset: 8192, Length: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateFile(ctx, "copy.raw", 4096); err != nil {
		t.Fatal(err)
	}
	if done, err := s.WriteToken(ctx, TokenWrite{Token: made.Token, Volume: FilePrefix + "copy.raw"}); err != nil || done.Bytes != 4096 {
		t.Errorf("%+v, %v", done, err)
	}
	got := make([]byte, 4096)
	if err := s.ReadVolume(ctx, FilePrefix+"copy.raw", got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file differs from what the token stands for: %v", err)
	}
	if info, err := s.StoreInfo(ctx); err != nil || info.Tokens.Count != 1 || len(info.Files) != 5 {
		t.Errorf("%+v, %v", info, err)
	}
	for what, err := range map[string]error{
		"status":     second(s.Status(ctx)),
		"copy stats": second(s.CopyStats(ctx)),
	} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// served is a Server with one open file.
type served struct {
	Server
	resized []string
}

func (s *served) FileUser(file string) string {
	return map[string]string{"open.raw": "LUN 7"}[file]
}
func (s *served) Resized(volume string) { s.resized = append(s.resized, volume) }

// TestStore_Server: the server learns which volumes grew, and what it has open stays.
func TestStore_Server(t *testing.T) {
	ctx := t.Context()
	server := &served{}
	s, err := Open(ctx, parse(t, t.TempDir()), logs.Discard(), Options{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.CreateVolume(ctx, "src", 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResizeVolume(ctx, "src", 2<<20); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(server.resized, " "); got != "src" {
		t.Errorf("resized: %q", got)
	}
	for _, name := range []string{"open.raw", "free.raw"} {
		if _, err := s.store.CreateFile(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteFile(ctx, "open.raw"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "LUN 7") {
		t.Errorf("an open file is deleted: %v", err)
	}
	if err := s.WriteVolume(ctx, FilePrefix+"open.raw", nil, 0); !errors.Is(err, ErrInUse) {
		t.Errorf("an open file is written: %v", err)
	}
	if err := s.DeleteFile(ctx, "free.raw"); err != nil {
		t.Error(err)
	}
}
