package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/admin"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/offload/view"
)

// stacks is a configuration with a LUN of each kind of view.
const stacks = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: plain, size: 16MiB}
      - {lun: 1, view: part}
      - {lun: 2, view: fast}
      - {lun: 3, view: safe}
      - {lun: 4, view: quick}
      - {lun: 5, view: checked}
      - {lun: 6, view: live}
      - {lun: 7, view: monday, read_only: true}
      - {lun: 8, view: outside}
      - {lun: 9, volume: disk}
views:
  - {name: part, partition: {of: disk, number: 2}}
  - {name: fast, stripe: {legs: [s0, s1, "file:legs/s2"], unit: 64KiB}, size: 4MiB}
  - {name: safe, mirror: {legs: [m0, m1]}, size: 8MiB}
  - {name: quick, cache: {of: slow, memory: 1MiB, mode: write-back}, size: 8MiB}
  - {name: checked, verify: {of: data}, size: 8MiB}
  - {name: live, origin: {of: both}}
  - {name: both, mirror: {legs: [b0, b1]}, size: 8MiB}
  - {name: monday, snapshot: {of: live}}
  - {name: outside, mirror: {legs: [o0, "backing:o1.img"]}, size: 8MiB}
`

// startStacks starts a service with stacks, on a disk with two partitions.
func startStacks(t *testing.T, dir string) *Service {
	t.Helper()
	err := admin.Inspect(t.Context(), parse(t, dir, stacks), logs.Discard(), func(*admin.Store) error { return nil })
	if err != nil { // no store yet
		first := start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
		makePartitioned(t, first)
		stop(t, first)
	}
	return start(t, parse(t, dir, stacks))
}

func makePartitioned(t *testing.T, s *Service) {
	t.Helper()
	v, err := s.store.CreateVolume(t.Context(), "disk", 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	mbr := make([]byte, 512)
	mbr[510], mbr[511] = 0x55, 0xAA
	for i, p := range [][2]uint32{{63, 2048}, {4096, 16384}} {
		e := mbr[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], p[0])
		binary.LittleEndian.PutUint32(e[12:], p[1])
	}
	if err := v.WriteAt(t.Context(), mbr, 0); err != nil {
		t.Fatal(err)
	}
}

// copyByToken makes tokens of a range and writes with them until all is done. It calls
// between after it has made a token, and returns how many tokens it made.
func copyByToken(t *testing.T, src *client.Disk, from int64, dst *client.Disk, to, length int64, between func()) (made int) {
	t.Helper()
	for length > 0 {
		token, n, err := src.PopulateToken(t.Context(), from, length)
		if err != nil {
			t.Fatal(err)
		}
		made++
		between()
		for done := int64(0); done < n; {
			step, err := dst.WriteUsingToken(t.Context(), token, done, to+done, n-done)
			if err != nil {
				t.Fatal(err)
			}
			done += step
		}
		from, to, length = from+n, to+n, length-n
	}
	return made
}

// TestViewsOverISCSI: a LUN of each kind of view is read and written, and copied by
// token to and from a volume; a token shows the moment at which it was made; all of
// it is there after a restart.
func TestViewsOverISCSI(t *testing.T) {
	dir := t.TempDir()
	s := startStacks(t, dir)
	plain := login(t, s, 0)
	const at, n = 8192 + 512, 3<<20 + 4096
	want := map[int][]byte{}
	for _, lun := range []int{1, 2, 3, 4, 5, 6, 8} {
		d := login(t, s, lun)
		data, later := random(uint64(lun), n), random(uint64(lun)+100, n)
		if err := d.WriteAt(t.Context(), data, at); err != nil {
			t.Fatalf("LUN %d: %v", lun, err)
		}
		overwrite := func() {
			if err := d.WriteAt(t.Context(), later, at); err != nil {
				t.Fatalf("LUN %d: %v", lun, err)
			}
		}
		made := copyByToken(t, d, at, plain, at, n, overwrite)
		if !bytes.Equal(read(t, plain, at, n), data) {
			t.Errorf("LUN %d: the copy by token is not what was there", lun)
		}
		if made != 1 {
			t.Errorf("LUN %d: %d tokens, one can stand for it", lun, made)
		}
		copyByToken(t, plain, at, d, at+1<<20, n, func() {})
		want[lun] = append(bytes.Clone(later[:1<<20]), data...)
		if got := read(t, d, at, n+1<<20); !bytes.Equal(got, want[lun]) {
			t.Errorf("LUN %d: the copy to it is wrong", lun)
		}
		if err := d.Flush(t.Context()); err != nil {
			t.Errorf("LUN %d: %v", lun, err)
		}
	}
	monday := login(t, s, 7)
	if got := read(t, monday, 0, 8<<20); !bytes.Equal(got, make([]byte, 8<<20)) {
		t.Error("the snapshot is not what its origin was")
	}
	if err := monday.WriteAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("the snapshot was written to")
	}
	disk := login(t, s, 9)
	if got := read(t, disk, 4096*512+at, n+1<<20); !bytes.Equal(got, want[1]) {
		t.Error("the partition is not in its place on the disk")
	}
	id := s.state.Load().unit("view fast").ID()
	stop(t, s)

	s = startStacks(t, dir)
	if s.state.Load().unit("view fast").ID() != id {
		t.Error("the identity of a LUN changed over a restart")
	}
	for lun, data := range want {
		if !bytes.Equal(read(t, login(t, s, lun), at, len(data)), data) {
			t.Errorf("LUN %d has changed over a restart", lun)
		}
	}
	if got := read(t, login(t, s, 7), 0, 8<<20); !bytes.Equal(got, make([]byte, 8<<20)) {
		t.Error("the snapshot has changed over a restart")
	}
}

// TestVerifyOverISCSI: data that changed below a verify view is a MEDIUM ERROR, and a
// copy by token to it can be read.
func TestVerifyOverISCSI(t *testing.T) {
	s := startStacks(t, t.TempDir())
	d := login(t, s, 5)
	if err := d.WriteAt(t.Context(), random(1, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
	v, err := s.store.Volume("data")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(t.Context(), []byte{1, 2, 3}, 8192); err != nil {
		t.Fatal(err)
	}
	read(t, d, 0, 8192)
	read(t, d, 12288, 8192)
	err = d.ReadAt(t.Context(), make([]byte, 8192), 4096)
	var sense *client.SenseError
	if !errors.As(err, &sense) || sense.Key != 3 {
		t.Fatalf("reading what has changed: %v, want MEDIUM ERROR", err)
	}
	copyByToken(t, login(t, s, 0), 0, d, 0, 64<<10, func() {})
	if !bytes.Equal(read(t, d, 0, 64<<10), make([]byte, 64<<10)) {
		t.Error("the copy is wrong")
	}
}

// TestMirrorLosesALeg: a leg that went while nothing ran is made again and filled
// from the other one, whichever it was.
func TestMirrorLosesALeg(t *testing.T) {
	for _, legs := range []string{`[o0, "backing:o1.img"]`, `["backing:o1.img", o0]`} {
		dir := t.TempDir()
		cfg := parse(t, dir, `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - {name: iqn.2026-11.example.odx:disks, luns: [{lun: 0, view: outside}]}
views:
  - {name: outside, mirror: {legs: `+legs+`}, size: 8MiB}
`)
		s := start(t, cfg)
		data := random(7, 1<<20)
		if err := login(t, s, 0).WriteAt(t.Context(), data, 4096); err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		path := filepath.Join(dir, "o1.img")
		onFile := func() []byte {
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return p[4096:][:len(data)]
		}
		if !bytes.Equal(onFile(), data) {
			t.Errorf("%s: the leg outside the store does not have the data", legs)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		s = start(t, cfg)
		if !bytes.Equal(read(t, login(t, s, 0), 4096, len(data)), data) {
			t.Errorf("%s: the data went with a leg", legs)
		}
		if err := s.state.Load().views.devices["outside"].(*view.Mirror).Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		if !bytes.Equal(onFile(), data) {
			t.Errorf("%s: the new leg was not filled", legs)
		}
	}
}

// TestViewsInUse: what is below views cannot be changed.
func TestViewsInUse(t *testing.T) {
	s := startStacks(t, t.TempDir())
	for what, err := range map[string]error{
		"delete":       s.admin.DeleteVolume(t.Context(), "m0"),
		"delete file":  s.admin.DeleteFile(t.Context(), "legs/s2"),
		"write":        s.admin.CheckWritable("data"),
		"write a file": s.admin.CheckWritable("file:legs/s2"),
	} {
		if !errors.Is(err, admin.ErrInUse) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.admin.ResizeVolume(t.Context(), "m0", 16<<20); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("resize: %v", err)
	}
	if _, err := s.admin.RenameFile(t.Context(), "legs/s2", "x"); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("rename: %v", err)
	}
	if err := errors.Join(s.admin.CheckWritable("disk"), s.admin.CheckWritable("plain")); err != nil {
		t.Errorf("a disk with a partition can be written: %v", err)
	}
}

// TestViewStateGoes: the auxiliary volume is removed with the view, and a view over
// something else does not take it over.
func TestViewStateGoes(t *testing.T) {
	dir := t.TempDir()
	s := startStacks(t, dir)
	if err := login(t, s, 6).WriteAt(t.Context(), random(1, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	other := strings.Replace(stacks, "live, origin: {of: both}", "live, origin: {of: other}, size: 8MiB", 1)
	cfg := parse(t, dir, other)
	s = start(t, cfg)
	if got := problems(s); len(got) != 2 || !strings.HasPrefix(got[0], "6 ") || !strings.HasPrefix(got[1], "7 ") ||
		!strings.HasSuffix(got[0], fmt.Sprintf(":%d: views[5]: view live: its snapshot is of another device than other, or of another size; give the view another name for a new snapshot", 1+strings.Count(other[:strings.Index(other, "name: live")], "\n"))) {
		t.Errorf("problems are %q", got)
	}
	login(t, s, 5)
	stop(t, s)

	s = start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
	for _, v := range s.store.Volumes() {
		if strings.HasPrefix(v.Name(), ".view") {
			t.Errorf("%s is left", v.Name())
		}
	}
	stop(t, s)
	s = start(t, cfg)
	if got := read(t, login(t, s, 7), 0, 8<<20); !bytes.Equal(got, make([]byte, 8<<20)) {
		t.Error("the new snapshot shows what the old one kept")
	}
}

// TestViewProblems: what only shows when a view is made is reported with its line.
func TestViewProblems(t *testing.T) {
	const head = "data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets:\n  - name: iqn.2026-11.example:x\n    luns: [{lun: 0, view: v}]\nviews:\n"
	for _, c := range []struct{ view, want string }{
		{"{name: v, cache: {of: missing}}", ":7: views[0]: view v: missing does not exist; give the view a size to create it"},
		{"{name: v, cache: {of: \"backing:missing\"}}", ":7: views[0]: view v: backing:DIR/missing does not exist; give the view a size to create it"},
		{"{name: v, cache: {of: \"backing:pipe\"}}", ":7: views[0]: view v: backing:DIR/pipe cannot be used: it is neither a regular file nor a block device"},
		{"{name: v, cache: {of: \"backing:pipe\"}, size: 1MiB}", ":7: views[0]: view v: open DIR/pipe: it is neither a regular file nor a block device"},
		{"{name: v, partition: {of: disk, number: 3}}", ":7: views[0]: view v: disk has no partition 3 in its partition table (mbr)"},
		{"{name: v, partition: {of: src, number: 1}}", ":7: views[0]: view v: src: no partition table: no signature 55AAh at byte 510"},
		{"{name: v, stripe: {legs: [src, dst], unit: 1GiB}}", ":7: views[0]: view v: invalid argument: stripe with a leg smaller than the unit of 1073741824 bytes"},
		{"{name: v, cache: {of: \"file:odd\"}}", ":5: targets[0].luns[0].block_size: LUN 0: the size of view v, 1000 bytes, is not a positive multiple of the block size 512"},
	} {
		t.Run(c.view, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
			makePartitioned(t, s)
			if _, err := s.admin.CreateFile(context.Background(), "odd", 1000); err != nil {
				t.Fatal(err)
			}
			stop(t, s)
			refused(t, parse(t, dir, head+"  - "+c.view+"\n"), strings.ReplaceAll(c.want, "DIR", dir))
		})
	}
}
