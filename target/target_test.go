package target

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore"
	"odx/conf"
	"odx/internal/kit/logs"
)

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
	id := s.state.Load().unit("volume src").ID()
	stop(t, s)
	stop(t, s) // again, for nothing
	for _, p := range portals {
		if conn, err := net.Dial("tcp", p); err == nil {
			conn.Close()
			t.Errorf("%s answers after the stop", p)
		}
	}

	again := start(t, cfg)
	if got := again.state.Load().unit("volume src").ID(); got != id {
		t.Errorf("the identity of a LUN changed over a restart: %x, was %x", got, id)
	}
	if other := again.state.Load().unit("volume dst").ID(); other == id {
		t.Errorf("two LUNs have the identity %x", id)
	}
}

func TestPortalTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	cfg := parse(t, dir, fmt.Sprintf(disks, fmt.Sprintf("%q", taken.Addr())))
	refused(t, cfg, fmt.Sprintf(":3: portals[0]: %s is in use by another program; stop it, or choose another port", taken.Addr()))

	// Nothing of the configuration was applied.
	store, err := backstore.Open(t.Context(), backstore.Options{Dir: cfg.DataDir, Log: logs.Discard()})
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
	refused(t, cfg, fmt.Sprintf(":2: data_dir: the store in %s is in use by another process, perhaps another odx; stop it, or choose another directory", cfg.DataDir))
}

// TestStart_LeavesOut: a LUN whose medium is not what the configuration says is left
// out, with the reason, and the others are served; where none is left, the start is
// refused with everything that is wrong.
func TestStart_LeavesOut(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`))))
	const head = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 65MiB}
      - {lun: 2, volume: third}
`
	file := filepath.Join(dir, "odx.yaml")
	wrong := []string{
		file + `:6: targets[0].luns[0].size: LUN 0: volume src has 64MiB, not 65MiB; odx does not resize it: grow it with ` + "`odx volume resize src 65MiB`" + `, write its size, leave size out, or name another volume`,
		file + `:7: targets[0].luns[1].size: LUN 2: volume third does not exist; give its size to create it`,
	}
	refused(t, parse(t, dir, head), strings.TrimPrefix(strings.Join(wrong, "\n"), file))

	for name, tt := range map[string]struct {
		more    string   // LUNs, and what follows them
		problem []string // that are left out, next to LUN 0 and 2
		served  int      // LUN
	}{
		"a volume that is there":     {more: "      - {lun: 1, volume: dst}\n", served: 1},
		"a volume that is made":      {more: "      - {lun: 3, volume: fourth, size: 64MiB}\n", served: 3},
		"no file":                    {more: "      - {lun: 1, volume: dst}\n      - {lun: 4, backing: \"file:none.img\"}\n", problem: []string{"4 "}, served: 1},
		"a directory":                {more: "      - {lun: 1, volume: dst}\n      - {lun: 4, backing: \"file:.\"}\n", problem: []string{"4 "}, served: 1},
		"a named pipe":               {more: "      - {lun: 1, volume: dst}\n      - {lun: 4, backing: \"file:pipe\", size: 1MiB}\n", problem: []string{"4 "}, served: 1},
		"a block size that does not": {more: "      - {lun: 1, volume: dst}\n      - {lun: 4, backing: \"file:odd.img\"}\n", problem: []string{"4 "}, served: 1},
		"views": {more: "      - {lun: 1, volume: dst}\n      - {lun: 4, view: top}\n      - {lun: 5, view: part}\n" +
			"views:\n  - {name: low, cache: {of: nothing}}\n  - {name: top, cache: {of: low}}\n  - {name: part, partition: {of: dst, number: 1}}\n",
			problem: []string{"4 " + file + ":12: views[0]: view low: nothing does not exist", "5 " + file + ":14: views[2]: view part: "}, served: 1},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "odd.img"), make([]byte, 5000), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
			s := start(t, parse(t, dir, head+tt.more))
			got := problems(s)
			want := append([]string{"0 " + wrong[0], "2 " + wrong[1]}, tt.problem...)
			if len(got) != len(want) {
				t.Fatalf("not served are %q, want %q", got, want)
			}
			for i := range want {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("not served is %q, want %q", got[i], want[i])
				}
			}
			if d := login(t, s, tt.served); d.Size() != 64<<20 {
				t.Errorf("LUN %d has %d bytes", tt.served, d.Size())
			}
			if st, _ := s.admin.Status(t.Context()); st.LUNs[0].Problem == "" {
				t.Error("the status does not say so")
			}
			if strings.Contains(volumeNames(s), "third") {
				t.Error("a volume was made that was not asked for")
			}
			stop(t, s)
		})
	}
}

// TestStart_Grown: what is larger than the configuration says is served as it is.
func TestStart_Grown(t *testing.T) {
	dir := t.TempDir()
	const text = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, backing: "file:disk.img", size: 1MiB}
      - {lun: 2, view: copy}
views:
  - {name: copy, mirror: {legs: [a, b]}, size: 2MiB}
`
	cfg := parse(t, dir, text)
	s := start(t, cfg)
	if _, err := s.admin.ResizeVolume(t.Context(), "src", 96<<20); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	if err := os.Truncate(filepath.Join(dir, "disk.img"), 3<<20); err != nil {
		t.Fatal(err)
	}
	s, log := startLogging(t, cfg)
	defer stop(t, s)
	if got := problems(s); len(got) > 0 {
		t.Errorf("not served are %q", got)
	}
	for lun, size := range map[int]int64{0: 96 << 20, 1: 3 << 20} {
		if d := login(t, s, lun); d.Size() != size {
			t.Errorf("LUN %d has %d bytes, want %d", lun, d.Size(), size)
		}
	}
	for _, want := range []string{
		"odx.yaml:6: targets[0].luns[0].size: LUN 0: volume src has 96MiB, which is more than 64MiB, and is served as it is; write its size, or leave size out",
		"odx.yaml:7: targets[0].luns[1].size: LUN 1: file ",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no warning %q in\n%s", want, log)
		}
	}
}

func volumeNames(s *Service) string {
	var names []string
	for _, v := range s.store.Volumes() {
		names = append(names, v.Name())
	}
	return strings.Join(names, " ")
}

func TestDedupUnitOfStore(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(disks, `"127.0.0.1:0"`)
	stop(t, start(t, parse(t, dir, text+"store: {dedup_unit: 8KiB}\n")))
	refused(t, parse(t, dir, text+"store: {dedup_unit: 32KiB}\n"),
		":9: store.dedup_unit: the store was created with 8KiB, not 32KiB; write that, or leave the key out")
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
	if len(s.state.Load().units) != 1 || len(s.LUNs()) != 2 || s.LUNs()[1].Size != 1<<20 {
		t.Errorf("%d logical units for %d LUNs", len(s.state.Load().units), len(s.LUNs()))
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
		":5: targets[0].luns[0].size: LUN 0: file "+path+" does not exist; give its size to create it")

	s := start(t, parse(t, dir, fmt.Sprintf(text, ", size: 1MiB")))
	unit := s.state.Load().unit("file " + path)
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
		":5: targets[0].luns[0].size: LUN 0: file "+path+" has 1MiB, not 2MiB; odx does not resize it: write its size, leave size out, or name another volume")
	again := start(t, parse(t, dir, fmt.Sprintf(text, "")))
	if got := again.state.Load().unit("file " + path).ID(); got != id {
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
		s, err := Start(t.Context(), cfg, logs.Discard())
		if err == nil {
			stop(t, s)
		}
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s", backing, err, want)
		}
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
