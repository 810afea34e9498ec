package vhd

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// loggedVHDX is a disk of 4 MiB whose log lengthens the file, puts block 1 there and
// changes block 0; contents is what it shows.
func loggedVHDX() (file, contents []byte) {
	x := &disktest.VHDX{Size: 4 * mib}
	end := x.End()
	x.BAT = map[int64]uint64{0: uint64(end) | 6}
	x.Payload = map[int64][]byte{end: noise(1, mib)}
	bat := binary.LittleEndian.AppendUint64(nil, uint64(end)|6)
	bat = binary.LittleEndian.AppendUint64(bat, uint64(end+mib)|6)
	x.Log = []disktest.LogEntry{{
		Last:    end + 2*mib,
		Zeros:   map[int64]int64{end + 64<<10: 8192},
		Sectors: map[int64][]byte{x.BATAt(): bat, end + mib + 4096: noise(2, 4096)},
	}}
	contents = append(noise(1, mib), make([]byte, 3*mib)...)
	clear(contents[64<<10:][:8192])
	copy(contents[mib+4096:], noise(2, 4096))
	return x.Bytes(), contents
}

// TestManager_LoggedVHDX: a disk whose log makes the file longer can be used for
// everything, and is only changed by what changes it.
func TestManager_LoggedVHDX(t *testing.T) {
	file, want := loggedVHDX()
	b := start(t)
	unchanged := func(what string) {
		t.Helper()
		f, err := b.store.File("d.vhdx")
		must.Succeed(t, err)
		got := make([]byte, f.Size())
		must.Succeed(t, f.ReadAt(ctx, got, 0))
		if !bytes.Equal(got, file) {
			t.Fatalf("%s has changed the file", what)
		}
	}
	b.raw(t, "d.vhdx", file)
	b.same(t, "d.vhdx", want)
	for _, to := range []string{"e.vhdx", "e.vhd", "e.img"} {
		b.do(t, Request{Operation: Convert, Source: "d.vhdx", Destination: to})
		b.same(t, to, want)
	}
	b.do(t, Request{Operation: Compact, Source: "d.vhdx", Destination: "f.vhdx"})
	b.same(t, "f.vhdx", want)
	scratch, err := b.NewScratch(ctx, "d.vhdx", int64(len(file)))
	must.Succeed(t, err)
	must.Succeed(t, scratch.WriteAt(ctx, file, 0))
	b.do(t, Request{Operation: Import, Source: scratch.Name(), Destination: "i.vhdx"})
	b.same(t, "i.vhdx", want)
	b.do(t, Request{Operation: Snapshot, Source: "d.vhdx", Destination: "child.vhdx"})
	b.same(t, "child.vhdx", want)
	unchanged("reading it")

	s, err := b.ServeReadOnly(ctx, "d.vhdx")
	must.Succeed(t, err)
	got := make([]byte, len(want))
	must.Succeed(t, s.ReadAt(ctx, got, 0))
	if d := difference(got, want); d != "no difference" {
		t.Errorf("served for reading: %s", d)
	}
	if err := s.WriteAt(ctx, make([]byte, 512), 0); err == nil {
		t.Error("a disk that is served for reading was written to")
	}
	pieces, err := s.Locate(ctx, 0, s.Size())
	must.Succeed(t, err)
	clear(got)
	at := int64(0)
	for _, p := range pieces {
		if p.Volume != nil {
			must.Succeed(t, p.Volume.ReadAt(ctx, got[at:at+p.Length], p.Offset))
		}
		at += p.Length
	}
	if d := difference(got, want); d != "no difference" || at != s.Size() {
		t.Errorf("pieces of it: %s", d)
	}
	must.Succeed(t, s.Close(ctx))
	unchanged("serving it for reading")

	// As a parent that is read, and at last for writing.
	b.change(t, "child.vhdx", func(*disk.Disk) {})
	unchanged("serving a child")
	b.write(t, "d.vhdx", noise(3, 4096), 3*mib)
	b.same(t, "d.vhdx", with(want, noise(3, 4096), 3*mib))
	for _, name := range b.files() {
		if name[0] == '.' {
			t.Errorf("left is %s", name)
		}
	}
}
