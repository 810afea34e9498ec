package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"odx/backstore"
	"odx/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disks is a configuration with a portal for every format verb of portals.
const disks = `
data_dir: data
portals: [%s]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB, block_size: 4096}
`

// parse reads text as the configuration in dir.
func parse(t *testing.T, dir, text string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// start starts a service that ends with the test.
func start(t *testing.T, cfg *conf.Config) *Service {
	t.Helper()
	s, err := Start(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Service) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// refused starts cfg, which has to fail with these words after the name of the
// configuration file.
func refused(t *testing.T, cfg *conf.Config, words string) {
	t.Helper()
	s, err := Start(t.Context(), cfg, quiet())
	if err == nil {
		stop(t, s)
		t.Fatalf("started; want an error: %s", words)
	}
	if want := cfg.File + words; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestServeAndRestart(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0", "127.0.0.1:0"`))
	s := start(t, cfg)
	portals := s.Portals()
	if len(portals) != 2 || portals[0] == portals[1] {
		t.Fatalf("portals %v", portals)
	}
	for _, p := range portals {
		conn, err := net.Dial("tcp", p)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	luns := s.LUNs()
	if want := "iscsi://" + portals[1] + "/iqn.2026-11.example.odx:disks/1"; luns[1].URLs[1] != want {
		t.Errorf("got URL %s, want %s", luns[1].URLs[1], want)
	}
	if luns[0].Size != 64<<20 || luns[0].Medium != "volume src" {
		t.Errorf("LUN 0 is %+v", luns[0])
	}
	id := s.units["volume src"].ID()
	stop(t, s)
	stop(t, s) // again, for nothing
	for _, p := range portals {
		if conn, err := net.Dial("tcp", p); err == nil {
			conn.Close()
			t.Errorf("%s answers after the stop", p)
		}
	}

	again := start(t, cfg)
	if got := again.units["volume src"].ID(); got != id {
		t.Errorf("the identity of a LUN changed over a restart: %x, was %x", got, id)
	}
	if other := again.units["volume dst"].ID(); other == id {
		t.Errorf("two LUNs have the identity %x", id)
	}
}

func TestPortalTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	dir := t.TempDir()
	cfg := parse(t, dir, fmt.Sprintf(disks, fmt.Sprintf("%q, %q", free.Addr(), taken.Addr())))
	refused(t, cfg, fmt.Sprintf(":3: portals[1]: %s is in use by another program; stop it, or choose another port", taken.Addr()))

	// Nothing of the configuration was applied.
	if conn, err := net.Dial("tcp", free.Addr().String()); err == nil {
		conn.Close()
		t.Error("the other portal still answers")
	}
	store, err := backstore.Open(t.Context(), backstore.Options{Dir: cfg.DataDir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if v := store.Volumes(); len(v) != 0 {
		t.Errorf("%d volumes were made", len(v))
	}
}

func TestPortalProblems(t *testing.T) {
	cfg := parse(t, "", fmt.Sprintf(disks, `"127.0.0.1:3260"`))
	for err, want := range map[error]string{
		syscall.EADDRINUSE:    "in use by another program",
		syscall.EADDRNOTAVAIL: "not an address of this machine",
		syscall.EAFNOSUPPORT:  "no IPv6",
		syscall.EACCES:        "above 1023",
		errors.New("odd"):     "cannot listen on 127.0.0.1:3260: odd",
		&net.DNSError{Err: "no such host", Name: "x"}: "write an IP address",
	} {
		got := portalProblem(cfg, 0, &net.OpError{Op: "listen", Err: err}).Error()
		if !strings.HasPrefix(got, "odx.yaml:3: portals[0]: ") || !strings.Contains(got, strings.TrimPrefix(want, "cannot listen on 127.0.0.1:3260: ")) || strings.Contains(got, "\n") {
			t.Errorf("%v: %s", err, got)
		}
	}
}

func TestStoreLocked(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`))
	start(t, cfg)
	refused(t, cfg, fmt.Sprintf(":2: data_dir: the store in %s is in use by another process, perhaps another odx; stop it, or choose another folder", cfg.DataDir))
}

// TestExistingVolumes: what the store holds and what the configuration says
// have to agree, and everything that does not is reported.
func TestExistingVolumes(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`))))
	refused(t, parse(t, dir, `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 65MiB}
      - {lun: 1, volume: dst}
      - {lun: 2, volume: third}
      - {lun: 3, volume: fourth, size: 64MiB}
store: {dedup_unit: 4KiB}
`), `:6: targets[0].luns[0].size: LUN 0: volume src has 64MiB, not 65MiB; nothing is resized by itself: grow it with `+"`odx volume resize src 65MiB`"+`, write its size, leave size out, or name another volume
`+filepath.Join(dir, "odx.yaml")+`:8: targets[0].luns[2].size: LUN 2: volume third does not exist; give the size to make it with`)

	s := start(t, parse(t, dir, `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 1, volume: dst}]
`))
	if names := volumeNames(s); names != "dst src" {
		t.Errorf("the store holds volumes %q; the refused configuration was applied in part", names)
	}
}

func volumeNames(s *Service) string {
	var names []string
	for _, v := range s.Store().Volumes() {
		names = append(names, v.Name())
	}
	return strings.Join(names, " ")
}

func TestDedupUnitOfStore(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(disks, `"127.0.0.1:0"`)
	stop(t, start(t, parse(t, dir, text+"store: {dedup_unit: 8KiB}\n")))
	refused(t, parse(t, dir, text+"store: {dedup_unit: 32KiB}\n"),
		":9: store.dedup_unit: the store was made with 8KiB, not 32KiB; write that, or leave the key out")
	stop(t, start(t, parse(t, dir, text)))
}

func TestSharedVolume(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:one
    luns: [{lun: 0, volume: v, size: 1MiB}]
  - name: iqn.2026-11.example.odx:two
    luns: [{lun: 7, volume: v}]
`))
	if len(s.units) != 1 || len(s.LUNs()) != 2 || s.LUNs()[1].Size != 1<<20 {
		t.Errorf("%d logical units behind %d LUNs", len(s.units), len(s.LUNs()))
	}
}

func TestBackingFile(t *testing.T) {
	const text = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:files
    luns: [{lun: 0, backing: "file:disk.img"%s}]
`
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	refused(t, parse(t, dir, fmt.Sprintf(text, "")),
		":5: targets[0].luns[0].size: LUN 0: file "+path+" does not exist; give the size to make it with")

	s := start(t, parse(t, dir, fmt.Sprintf(text, ", size: 1MiB")))
	unit := s.units["file "+path]
	id := unit.ID()
	if err := unit.Volume().WriteAt(t.Context(), []byte(strings.Repeat("odx!", 128)), 512); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	data, err := os.ReadFile(path)
	if err != nil || len(data) != 1<<20 || string(data[512:516]) != "odx!" {
		t.Fatalf("the file has %d bytes, %q at 512 (%v)", len(data), data[512:516], err)
	}

	refused(t, parse(t, dir, fmt.Sprintf(text, ", size: 2MiB")),
		":5: targets[0].luns[0].size: LUN 0: file "+path+" has 1MiB, not 2MiB; nothing is resized by itself: write its size, leave size out, or name another volume")
	again := start(t, parse(t, dir, fmt.Sprintf(text, "")))
	if got := again.units["file "+path].ID(); got != id {
		t.Errorf("the identity of the file changed over a restart: %x, was %x", got, id)
	}
}

func TestBackingProblems(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "odd.img"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for backing, want := range map[string]string{
		"odd.img": "block_size: LUN 0: the size of file " + dir + "/odd.img, 1000 bytes, is not a positive multiple of the block size 512",
		".":       ": LUN 0: file " + dir + " cannot be used: it is not a regular file",
	} {
		cfg := parse(t, dir, fmt.Sprintf(`data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:files
    luns: [{lun: 0, backing: "file:%s"}]
`, backing))
		s, err := Start(t.Context(), cfg, quiet())
		if err == nil {
			stop(t, s)
		}
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s", backing, err, want)
		}
	}
}

func TestInspectMakesNoStore(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`))
	err := Inspect(t.Context(), cfg, quiet(), func(*Service) error { t.Error("called"); return nil })
	if err == nil || !strings.Contains(err.Error(), "there is no store") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the store: %v", err)
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:3260":  "127.0.0.1:3260",
		"[::]:3260":     "[::1]:3260",
		"10.0.0.1:3260": "10.0.0.1:3260",
		"[fd00::1]:1":   "[fd00::1]:1",
	} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a); got != want {
			t.Errorf("reachable(%s) = %s, want %s", addr, got, want)
		}
	}
}

// TestSizes: what the configuration accepts, the store accepts.
func TestSizes(t *testing.T) {
	if conf.MaxSize != backstore.MaxVolumeBytes {
		t.Errorf("configuration allows %d bytes, the store %d", int64(conf.MaxSize), int64(backstore.MaxVolumeBytes))
	}
}
