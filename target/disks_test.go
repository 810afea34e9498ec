package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"odx/admin"
	"odx/internal/kit/logs"
	"odx/vhd"
	"odx/vhd/disk/disktest"
)

// virtualDisks is a configuration with a LUN of each kind of file.
const virtualDisks = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: plain, size: 16MiB}
      - {lun: 1, file: images/a.vhdx, size: 16MiB}
      - {lun: 2, file: images/b.vhd, size: 16MiB}
      - {lun: 3, file: images/c.img, size: 16MiB}
      - {lun: 4, file: images/d.vhdx, size: 16MiB, block_size: 4096}
      - {lun: 5, view: safe}
views:
  - {name: safe, mirror: {legs: ["file:images/e.vhdx", m1]}, size: 16MiB}
`

// TestFilesOverISCSI: files are LUNs that show the disks in them, which are read and
// written, and copied by token, with what they have not yet as zeros.
func TestFilesOverISCSI(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, virtualDisks)
	s := start(t, cfg)
	plain := login(t, s, 0)
	const at, n = 3<<20 + 4096, 5<<20 + 8192
	want := map[int][]byte{}
	for lun := 1; lun <= 5; lun++ {
		d := login(t, s, lun)
		data, later := random(uint64(lun), n), random(uint64(lun)+100, n)
		if err := d.WriteAt(t.Context(), data, at); err != nil {
			t.Fatalf("LUN %d: %v", lun, err)
		}
		// From the first block on: a part of it was never written.
		copyByToken(t, d, 0, plain, 0, at+n, func() {
			if err := d.WriteAt(t.Context(), later, at); err != nil {
				t.Fatalf("LUN %d: %v", lun, err)
			}
		})
		if !bytes.Equal(read(t, plain, 0, at+n), append(make([]byte, at), data...)) {
			t.Errorf("LUN %d: the copy by token is not what was there", lun)
		}
		copyByToken(t, plain, at, d, at+1<<20, n, func() {})
		if err := d.Zero(t.Context(), at, 64<<10); err != nil {
			t.Errorf("LUN %d: %v", lun, err)
		}
		want[lun] = append(bytes.Clone(later[:1<<20]), data...)
		clear(want[lun][:64<<10])
		if got := read(t, d, at, n+1<<20); !bytes.Equal(got, want[lun]) {
			t.Errorf("LUN %d: the copy to it is wrong", lun)
		}
		if err := d.Flush(t.Context()); err != nil {
			t.Errorf("LUN %d: %v", lun, err)
		}
	}
	id := s.state.Load().unit("file:images/a.vhdx").ID()
	disks, err := s.admin.DiskManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []vhd.Request{
		{Operation: vhd.Compact, Source: "images/a.vhdx"},
		{Operation: vhd.Snapshot, Source: "images/b.vhd", Destination: "x.vhd"},
		{Operation: vhd.Resize, Source: "images/e.vhdx", Size: 32 << 20},
	} {
		if _, err := disks.Do(t.Context(), r, nil); !errors.Is(err, admin.ErrInUse) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := s.admin.DeleteFile(t.Context(), "images/c.img"); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	stop(t, s)

	// While nothing is served, they can be worked on.
	err = admin.Inspect(t.Context(), cfg, logs.Discard(), func(s *admin.Store) error {
		disks, err := s.DiskManager(t.Context())
		if err != nil {
			return err
		}
		_, err = disks.Do(t.Context(), vhd.Request{Operation: vhd.Compact, Source: "images/a.vhdx"}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	if s.state.Load().unit("file:images/a.vhdx").ID() != id {
		t.Error("the identity of a LUN changed because its file was compacted")
	}
	for lun, data := range want {
		if !bytes.Equal(read(t, login(t, s, lun), at, len(data)), data) {
			t.Errorf("LUN %d has changed over a restart", lun)
		}
	}
}

// TestChainOverISCSI: a LUN on a differencing disk leaves the parent as it is, which
// cannot be changed while it is served; afterwards the child is merged into it.
func TestChainOverISCSI(t *testing.T) {
	for _, ext := range []string{".vhd", ".vhdx"} {
		dir := t.TempDir()
		config := func(name string) string {
			return fmt.Sprintf("data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets:\n  - name: iqn.2026-11.example.odx:disks\n    luns: [{lun: 0, file: %s, size: 16MiB}]\n", name+ext)
		}
		s := start(t, parse(t, dir, config("base")))
		base := random(1, 9<<20)
		if err := login(t, s, 0).WriteAt(t.Context(), base, 0); err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		do := func(r vhd.Request) {
			t.Helper()
			err := admin.Inspect(t.Context(), parse(t, dir, config("base")), logs.Discard(), func(s *admin.Store) error {
				disks, err := s.DiskManager(t.Context())
				if err != nil {
					return err
				}
				_, err = disks.Do(t.Context(), r, nil)
				return err
			})
			if err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		do(vhd.Request{Operation: vhd.Snapshot, Source: "base" + ext, Destination: "child" + ext})
		s = start(t, parse(t, dir, config("child")))
		d := login(t, s, 0)
		want := bytes.Clone(base)
		for i, off := range []int{0, 5 << 20, 8<<20 + 512*7} {
			p := random(uint64(10+i), 4096+512*i)
			copy(want[off:], p)
			if err := d.WriteAt(t.Context(), p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(read(t, d, 0, len(want)), want) {
			t.Errorf("%s: the child is wrong", ext)
		}
		if err := s.admin.DeleteFile(t.Context(), "base"+ext); !errors.Is(err, admin.ErrInUse) {
			t.Errorf("delete the parent of a LUN: %v", err)
		}
		stop(t, s)
		do(vhd.Request{Operation: vhd.Merge, Source: "child" + ext})
		s = start(t, parse(t, dir, config("base")))
		if !bytes.Equal(read(t, login(t, s, 0), 0, len(want)), want) {
			t.Errorf("%s: the merged disk is wrong", ext)
		}
		stop(t, s)
	}
}

// TestFileProblems: what is wrong with the file of a LUN is reported with its line.
func TestFileProblems(t *testing.T) {
	const head = "data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets:\n  - name: iqn.2026-11.example:x\n    luns:\n"
	for _, c := range []struct{ lun, want string }{
		{"{lun: 0, file: none.vhdx}", ":6: targets[0].luns[0].size: LUN 0: file:none.vhdx does not exist; give its size to create it"},
		{"{lun: 0, file: large.vhdx}", ":6: targets[0].luns[0]: LUN 0: file:large.vhdx cannot be used: its sectors have 4096 bytes; write block_size: 4096"},
		{"{lun: 0, file: large.vhdx, block_size: 4096, size: 32MiB}", ":6: targets[0].luns[0].size: LUN 0: file:large.vhdx has 16MiB, not 32MiB"},
	} {
		t.Run(c.lun, func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
			disks, err := s.admin.DiskManager(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := disks.Do(t.Context(), vhd.Request{Operation: vhd.Create, Destination: "large.vhdx", Size: 16 << 20, SectorLength: 4096}, nil); err != nil {
				t.Fatal(err)
			}
			stop(t, s)
			_, err = Start(t.Context(), parse(t, dir, head+"      - "+c.lun+"\n"), logs.Discard())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// putFile makes a file of the store.
func putFile(t *testing.T, s *Service, name string, p []byte) {
	t.Helper()
	if _, err := s.admin.CreateFile(t.Context(), name, int64(len(p))); err != nil {
		t.Fatal(err)
	}
	f, err := s.admin.Object(admin.FilePrefix + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
}

// TestUnusableDisks: a disk that is damaged, or whose parent is missing, is left out with
// what is over it, and the rest is served.
func TestUnusableDisks(t *testing.T) {
	dir := t.TempDir()
	s := start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
	logged := &disktest.VHDX{Size: 4 << 20, Log: []disktest.LogEntry{{}}}
	end := logged.End()
	logged.Log[0] = disktest.LogEntry{Last: end + 1<<20, Sectors: map[int64][]byte{logged.BATAt(): binary.LittleEndian.AppendUint64(nil, uint64(end)|6), end: []byte("logged")}}
	orphan := &disktest.VHDX{Size: 4 << 20, Parent: `.\gone.vhdx`}
	putFile(t, s, "junk.vhd", make([]byte, 5<<20))
	putFile(t, s, "junk2.vhd", make([]byte, 5<<20))
	putFile(t, s, "orphan.vhdx", orphan.Bytes())
	putFile(t, s, "logged.vhdx", logged.Bytes())
	putFile(t, s, "read.vhdx", logged.Bytes())
	stop(t, s)
	s = start(t, parse(t, dir, `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, file: junk.vhd}
      - {lun: 1, volume: src}
      - {lun: 2, file: orphan.vhdx}
      - {lun: 4, view: part}
      - {lun: 5, file: logged.vhdx}
      - {lun: 6, file: read.vhdx, read_only: true}
views:
  - {name: safe, cache: {of: "file:junk2.vhd", memory: 1MiB}}
  - {name: part, cache: {of: safe, memory: 1MiB}}
`))
	problems := problems(s)
	for i, want := range []string{"0 file junk.vhd: ", "2 file orphan.vhdx: its parent ./gone.vhdx is not in the store", "4 file junk2.vhd: "} {
		if i >= len(problems) || !strings.HasPrefix(problems[i], want) {
			t.Fatalf("problems are %q, want %q", problems, want)
		}
	}
	if len(problems) != 3 {
		t.Errorf("problems are %q", problems)
	}
	if st, _ := s.admin.Status(t.Context()); st.LUNs[0].Problem == "" || st.LUNs[1].Problem != "" || st.LUNs[4].SizeBytes != 4<<20 {
		t.Errorf("the status is %+v", st.LUNs)
	}
	login(t, s, 1)
	for _, lun := range []int{5, 6} {
		if got := read(t, login(t, s, lun), 0, 4096); !bytes.HasPrefix(got, []byte("logged")) {
			t.Errorf("LUN %d does not show what its log has", lun)
		}
	}
	f, err := s.admin.Object(admin.FilePrefix + "read.vhdx")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, f.Size())
	if err := f.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, logged.Bytes()) {
		t.Error("serving a disk read-only changed its file")
	}
}
