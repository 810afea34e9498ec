package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"odx/admin"
	client "odx/initiator"
	"odx/internal/kit/must"
	"odx/tokens"
)

// withoutSockets is a directory without its sockets, which have no content.
type withoutSockets struct{ fs.FS }

func (w withoutSockets) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Type()&fs.ModeSocket != 0 }), err
}

// killed returns a service over what is left of s when its process ends now and
// the kernel lives: a copy of its files as they are.
func killed(t *testing.T, s *Service, text string) *Service {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must.Succeed(t, os.CopyFS(data, withoutSockets{os.DirFS(s.state.Load().cfg.DataDir)}))
	return start(t, parse(t, dir, text))
}

// TestAcknowledgedSurvivesTheProcess: what was answered with GOOD is there when
// the process ends right afterwards, with the write cache on and without a flush.
func TestAcknowledgedSurvivesTheProcess(t *testing.T) {
	text := fmt.Sprintf(disks, `"127.0.0.1:0"`)
	s := start(t, parse(t, t.TempDir(), text))
	const name = "iqn.2026-11.example:writer"
	c := session(t, s, name)
	defer c.Close()
	open := func(s *Service, lun int) *client.Disk {
		t.Helper()
		url, err := client.ParseURL(s.LUNs()[lun].URLs[0])
		if err != nil {
			t.Fatal(err)
		}
		d, err := client.Open(t.Context(), client.Options{InitiatorName: name + "2", URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	src, dst := open(s, 0), open(s, 1)
	data := random(3, 1<<20)
	var vulnerable []byte
	holds := func(lun int, off int64, want []byte) func(t *testing.T, s *Service) {
		return func(t *testing.T, s *Service) {
			got := make([]byte, len(want))
			if err := open(s, lun).ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want) {
				t.Errorf("LUN %d at %d: %v, equal %v", lun, off, err, bytes.Equal(got, want))
			}
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		kept func(t *testing.T, s *Service)
	}{
		{"WRITE", func() { must.Succeed(t, src.WriteAt(t.Context(), data, 0)) }, holds(0, 0, data)},
		{"WRITE of one block", func() { must.Succeed(t, src.WriteAt(t.Context(), data[:512], 5<<20+512)) }, holds(0, 5<<20, append(make([]byte, 512), data[:512]...))},
		{"UNMAP", func() {
			list := make([]byte, 24)
			list[1], list[3] = 22, 16
			binary.BigEndian.PutUint64(list[8:], 16)
			binary.BigEndian.PutUint32(list[16:], 16)
			must.Succeed(t, run(t, c, []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list))
		}, holds(0, 0, append(append(bytes.Clone(data[:8192]), make([]byte, 8192)...), data[16384:32768]...))},
		{"WRITE SAME", func() {
			must.Succeed(t, run(t, c, []byte{0x41, 0, 0, 0, 0, 64, 0, 0, 8, 0}, data[512:1024]))
		}, holds(0, 64*512, bytes.Repeat(data[512:1024], 8))},
		{"COMPARE AND WRITE", func() {
			cdb := make([]byte, 16)
			cdb[0], cdb[9], cdb[13] = 0x89, 80, 1
			must.Succeed(t, run(t, c, cdb, append(bytes.Clone(data[80*512:81*512]), data[:512]...)))
		}, holds(0, 80*512, data[:512])},
		{"WRITE USING TOKEN", func() {
			token, n, err := src.PopulateToken(t.Context(), 512<<10, 256<<10)
			must.Succeed(t, err)
			if written, err := dst.WriteUsingToken(t.Context(), token, 0, 4<<20, n); err != nil || written != 256<<10 {
				t.Fatal(written, err)
			}
		}, holds(1, 4<<20, data[512<<10:768<<10])},
		{"the end of a change vulnerable token", func() {
			made, err := s.admin.CreateToken(t.Context(), admin.TokenRequest{Volume: "src", Offset: 9 << 20, Length: 4096, Type: tokens.RODTypePointInTimeChangeVulnerable})
			must.Succeed(t, err)
			vulnerable = made.Token
			must.Succeed(t, src.WriteAt(t.Context(), data[:512], 9<<20))
		}, func(t *testing.T, s *Service) {
			_, err := s.admin.WriteToken(t.Context(), admin.TokenWrite{Token: vulnerable, Volume: "dst"})
			if !errors.Is(err, tokens.ErrCancelled) {
				t.Errorf("%v, want %v", err, tokens.ErrCancelled)
			}
			holds(0, 9<<20, data[:512])(t, s)
		}},
		{"MODE SELECT", func() {
			page := &client.Command{CDB: []byte{0x1a, 0x08, 0x0a, 0, 255, 0}, In: make([]byte, 255)}
			must.Succeed(t, c.Do(t.Context(), page))
			list := page.In[:page.Received]
			list[0], list[2], list[6] = 0, 0, list[6]|0x04 // D_SENSE
			list[4] &= 0x3f
			must.Succeed(t, run(t, c, []byte{0x15, 0x11, 0, 0, byte(len(list)), 0}, list))
		}, func(t *testing.T, s *Service) {
			c := session(t, s, name+"3")
			defer c.Close()
			page := &client.Command{CDB: []byte{0x1a, 0x08, 0x0a, 0, 255, 0}, In: make([]byte, 255)}
			if err := c.Do(t.Context(), page); err != nil || page.In[6]&0x04 == 0 {
				t.Errorf("%v, control mode page %x", err, page.In[:page.Received])
			}
		}},
		{"PERSISTENT RESERVE OUT", func() {
			persistentReserveOut(t, c, 0, 0, 0xAA, 1)
			persistentReserveOut(t, c, 1, 0xAA, 0, 0)
		}, func(t *testing.T, s *Service) {
			other := session(t, s, "iqn.2026-11.example:other")
			defer other.Close()
			var status *client.StatusError
			if err := run(t, other, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil); !errors.As(err, &status) || status.Status != 0x18 {
				t.Errorf("another initiator reads: %v, want RESERVATION CONFLICT", err)
			}
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			left := killed(t, s, text)
			step.kept(t, left)
		})
	}
}

// everyMedium is a configuration with a LUN of each kind of medium in the store.
const everyMedium = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, file: images/a.vhdx, size: 16MiB}
      - {lun: 1, file: images/b.vhd, size: 16MiB}
      - {lun: 2, file: images/c.img, size: 16MiB}
      - {lun: 3, view: striped}
      - {lun: 4, view: mirrored}
      - {lun: 5, view: ahead}
      - {lun: 6, view: checked}
      - {lun: 7, view: live}
views:
  - {name: striped, stripe: {legs: [s0, s1], unit: 64KiB}, size: 16MiB}
  - {name: mirrored, mirror: {legs: ["file:images/m.vhdx", m1]}, size: 16MiB}
  - {name: ahead, cache: {of: c0, memory: 1MiB, mode: write-through}, size: 16MiB}
  - {name: checked, verify: {of: v0}, size: 16MiB}
  - {name: live, origin: {of: o0}, size: 16MiB}
`

// TestAcknowledgedSurvivesOnEveryMedium: the same for LUNs that are more than a
// volume.
func TestAcknowledgedSurvivesOnEveryMedium(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), everyMedium))
	type write struct {
		off  int64
		data []byte
	}
	written := map[int][]write{}
	for lun := range 8 {
		d := login(t, s, lun)
		for i, w := range []write{
			{1 << 20, random(uint64(lun), 300<<10)},
			{5<<20 + 512*3, random(uint64(lun)+50, 512)},
			{1<<20 + 64<<10, random(uint64(lun)+90, 8192)}, // over what is there
		} {
			if err := d.WriteAt(t.Context(), w.data, w.off); err != nil {
				t.Fatalf("LUN %d, write %d: %v", lun, i, err)
			}
			written[lun] = append(written[lun], w)
		}
	}
	left := killed(t, s, everyMedium)
	for lun := range 8 {
		d := login(t, left, lun)
		want := make([]byte, 6<<20)
		for _, w := range written[lun] {
			copy(want[w.off:], w.data)
		}
		got := make([]byte, len(want))
		if err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("LUN %d (%s): %v, equal %v", lun, s.LUNs()[lun].Medium, err, bytes.Equal(got, want))
		}
	}
}
