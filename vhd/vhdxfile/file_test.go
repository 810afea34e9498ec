package vhdxfile

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// Disks of all kinds have the specified properties after they are reopened.
func TestCreate_Kinds(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic, disk.Differencing} {
		for _, g := range []disk.Geometry{
			{Size: 512},
			{Size: 10*mib + 512, BlockLength: 1 * mib, SectorLength: 512, PhysicalSectorLength: 512},
			{Size: 5 << 30, SectorLength: 4096},
			{Size: 64<<30 + 4096, BlockLength: 256 * mib},
			{Size: 64 << 40, BlockLength: 32 * mib},
		} {
			t.Run(fmt.Sprintf("%d/%d/%d", kind, g.Size, g.BlockLength), func(t *testing.T) {
				s := spec(kind, 0)
				s.Geometry = g
				c := &sparse{}
				f, err := Create(t.Context(), c, s)
				must.Succeed(t, err)
				f = reopen(t, c, f)
				info := f.Info()
				if g.BlockLength == 0 {
					g.BlockLength = 32 * mib
				}
				g.SectorLength, g.PhysicalSectorLength = max(g.SectorLength, 512), info.PhysicalSectorLength
				if info.Geometry != g || info.Kind != kind || info.ID != dataID || info.DiskID != diskID || info.Creator != "odx" || info.Format != disk.VHDX {
					t.Errorf("Info: %+v", info)
				}
				if (info.Parent != nil) != (kind == disk.Differencing) {
					t.Errorf("parent %+v", info.Parent)
				}
				want := disk.Block{}
				last := g.Blocks() - 1
				if kind == disk.Fixed {
					first := f.block(0).Offset
					want = disk.Block{State: disk.Full, Offset: first + last*g.BlockLength}
					if first%min(g.BlockLength, 2*mib) != 0 {
						t.Errorf("payload begins at %d", first)
					}
				}
				if got := f.block(last); got != want {
					t.Errorf("the last block is %+v, want %+v", got, want)
				}
				if text := clean(t, c); text != "" {
					t.Errorf("Check finds %s", text)
				}
			})
		}
	}
}

// Create refuses invalid specifications.
func TestCreate_Invalid(t *testing.T) {
	for name, change := range map[string]func(*disk.Spec){
		"no size":          func(s *disk.Spec) { s.Size = 0 },
		"half a sector":    func(s *disk.Spec) { s.Size += 256 },
		"too large":        func(s *disk.Spec) { s.Size, s.BlockLength = 64<<40+512, 256*mib },
		"small blocks":     func(s *disk.Spec) { s.BlockLength = 512 * kib },
		"large blocks":     func(s *disk.Spec) { s.BlockLength = 512 * mib },
		"odd blocks":       func(s *disk.Spec) { s.BlockLength = 3 * mib },
		"negative blocks":  func(s *disk.Spec) { s.BlockLength = -1 << 63 },
		"odd sectors":      func(s *disk.Spec) { s.SectorLength = 1024 },
		"odd real sectors": func(s *disk.Spec) { s.PhysicalSectorLength = 2048 },
		"no kind":          func(s *disk.Spec) { s.Kind = 0 },
		"parent of none":   func(s *disk.Spec) { s.Parent = &disk.Parent{Paths: []string{"p"}} },
		"no parent":        func(s *disk.Spec) { s.Kind = disk.Differencing },
		"parent nowhere":   func(s *disk.Spec) { s.Kind, s.Parent = disk.Differencing, &disk.Parent{} },
		"two of a sort":    func(s *disk.Spec) { s.Kind, s.Parent = disk.Differencing, &disk.Parent{Paths: []string{"a", "b"}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(disk.Dynamic, 8*mib)
			change(&s)
			m := disktest.New([]byte("what was here"))
			if _, err := Create(t.Context(), m, s); err == nil {
				t.Error("the disk was created")
			}
			if string(m.Bytes()) != "what was here" {
				t.Error("the file was changed")
			}
		})
	}
}

// Blocks pass through their states.
func TestFile_AllocateFree(t *testing.T) {
	ctx := t.Context()
	m, f := newDisk(t, spec(disk.Dynamic, 6*mib))
	must.Succeed(t, f.Allocate(ctx, []int64{4, 1, 4, 2}))
	at := f.block(4).Offset
	if states(f) != "-FF-F-" || f.block(1).Offset != at+mib || f.block(2).Offset != at+2*mib {
		t.Fatalf("after Allocate: %s, %d %d %d", states(f), at, f.block(1).Offset, f.block(2).Offset)
	}
	must.Succeed(t, m.WriteAt(ctx, slices.Repeat([]byte{1}, mib), f.block(1).Offset))
	must.Succeed(t, f.Free(ctx, []int64{1, 0, 1}))
	size := m.Size()
	must.Succeed(t, f.Allocate(ctx, []int64{5}))
	if states(f) != "-0F-FF" || f.block(5).Offset != at+mib || m.Size() != size {
		t.Fatalf("a free place was not reused: %s, block 5 at %d", states(f), f.block(5).Offset)
	}
	p := make([]byte, mib)
	must.Succeed(t, m.ReadAt(ctx, p, f.block(5).Offset))
	if slices.Max(p) != 0 {
		t.Error("a block has the old contents of its place")
	}
	f = reopen(t, m, f)
	if states(f) != "-0F-FF" {
		t.Errorf("reopened: %s", states(f))
	}
	must.Succeed(t, f.Free(ctx, []int64{2}))
	f = reopen(t, m, f)
	must.Succeed(t, f.Complete(ctx, []int64{0}))
	if f.block(0).Offset != at+2*mib {
		t.Error("space that was free at Open is not used")
	}
	closeFile(t, f)
	clean(t, m)
}

// Free releases the payload of a fixed disk, but not its place.
func TestFile_FreeFixed(t *testing.T) {
	ctx := t.Context()
	m, f := newDisk(t, spec(disk.Fixed, 3*mib))
	before := f.block(1)
	must.Succeed(t, m.WriteAt(ctx, []byte("payload"), before.Offset))
	must.Succeed(t, f.Free(ctx, []int64{1}))
	p := make([]byte, 7)
	must.Succeed(t, m.ReadAt(ctx, p, before.Offset))
	if f.block(1) != before || slices.Max(p) != 0 {
		t.Errorf("after Free the block is %+v and reads %q", f.block(1), p)
	}
}

// Sectors of a differencing disk become present.
func TestFile_Present(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		ctx := t.Context()
		s := spec(disk.Differencing, 2*mib+3*sector)
		s.SectorLength = sector
		m, f := newDisk(t, s)
		n := mib / sector
		must.Succeed(t, f.Allocate(ctx, []int64{1, 2}))
		for _, run := range [][2]int64{{1, 3}, {10, 1}, {n - 9, 9}, {3, 1}} {
			must.Succeed(t, f.SetPresent(ctx, 1, run[0], run[1]))
		}
		f = reopen(t, m, f)
		bits, err := f.Present(ctx, 1, 3, n-3)
		must.Succeed(t, err)
		var set []int64
		for i := range n - 3 {
			if bits.Get(i) {
				set = append(set, i+3)
			}
		}
		want := []int64{3, 10}
		for i := n - 9; i < n; i++ {
			want = append(want, i)
		}
		if !slices.Equal(set, want) || states(f) != "-PP" {
			t.Errorf("sectors %v of %s, want %v", set, states(f), want)
		}
		must.Succeed(t, f.SetPresent(ctx, 1, 0, n))
		must.Succeed(t, f.SetPresent(ctx, 2, 0, 2))
		must.Succeed(t, f.SetPresent(ctx, 2, 2, 1))
		if states(f) != "-FF" {
			t.Errorf("all sectors are set: %s", states(f))
		}
		must.Succeed(t, f.Free(ctx, []int64{0, 1}))
		must.Succeed(t, f.Allocate(ctx, []int64{1}))
		must.Succeed(t, f.Complete(ctx, []int64{0}))
		if states(f) != "FFF" {
			t.Errorf("a block of zeros was allocated: %s", states(f))
		}
		for _, err := range []error{f.SetPresent(ctx, 1, n, 1), f.SetPresent(ctx, 2, 0, 4), f.SetPresent(ctx, 3, 0, 1), f.Allocate(ctx, []int64{3}), f.Free(ctx, []int64{-1})} {
			if err == nil {
				t.Error("no error for sectors or a block out of range")
			}
		}
		closeFile(t, f)
		clean(t, m)
	}
}

// Bits of an absent block, which another program left set, are cleared.
func TestFile_StaleBits(t *testing.T) {
	ctx := t.Context()
	m, f := newDisk(t, spec(disk.Differencing, 40*mib))
	must.Succeed(t, f.Allocate(ctx, []int64{0}))
	at, length, err := f.bitsAt(ctx, 20)
	must.Succeed(t, err)
	must.Succeed(t, m.WriteAt(ctx, slices.Repeat([]byte{0xff}, int(2*length)), at-length))
	must.Succeed(t, f.Allocate(ctx, []int64{30, 20}))
	bits, err := f.Present(ctx, 20, 0, 2048)
	must.Succeed(t, err)
	p := make([]byte, length)
	must.Succeed(t, m.ReadAt(ctx, p, at-length))
	if slices.Max(bits) != 0 || slices.Min(p) != 0xff {
		t.Error("the bits of a new block are not clear, or others are")
	}
}

// The first change gives the file new identifiers (MS-VHDX 2.2.2), and later changes do
// not.
func TestFile_Identifiers(t *testing.T) {
	ctx := t.Context()
	m, f := newDisk(t, spec(disk.Dynamic, 4*mib))
	must.Succeed(t, f.Changing(ctx))
	if f.Info().ID != dataID {
		t.Error("the disk does not have its initial identifier")
	}
	f = reopen(t, m, f)
	file := f.headers.fileWrite
	must.Succeed(t, f.Allocate(ctx, []int64{0}))
	changed := f.headers.fileWrite
	if changed == file || f.Info().ID != dataID {
		t.Error("a change of the file must change FileWriteGuid but not DataWriteGuid")
	}
	must.Succeed(t, f.Changing(ctx))
	id := f.Info().ID
	must.Succeed(t, f.Changing(ctx))
	must.Succeed(t, f.Allocate(ctx, []int64{1}))
	if f.headers.fileWrite != changed || id == dataID || f.Info().ID != id {
		t.Error("identifiers changed other than once")
	}
	if f = reopen(t, m, f); f.Info().ID != id || f.headers.log != (disk.GUID{}) {
		t.Error("the file has other identifiers")
	}
	sequence := f.headers.sequence
	if f = reopen(t, m, f); f.headers.sequence != sequence {
		t.Error("an unchanged file was written")
	}
}

// A child has the identity and paths of its parent.
func TestLocator_Parent(t *testing.T) {
	paths := []string{"../base/parent.vhdx", `\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\parent.vhdx`, `\\?\d:\base\parent.vhdx`}
	s := spec(disk.Differencing, 4*mib)
	s.Parent.Paths, s.Parent.OtherID = paths, dataID
	m, f := newDisk(t, s)
	if got := (*f.meta.parent)[relativeKey]; got != `..\base\parent.vhdx` {
		t.Errorf("relative path %q", got)
	}
	f = reopen(t, m, f)
	if p := f.Info().Parent; p.ID != parentID || !slices.Equal(p.Paths, paths) {
		t.Errorf("parent %+v", p)
	}
	if p := f.Info().Parent; !p.Is(parentID) || !p.Is(dataID) || p.Is(disk.GUID{}) {
		t.Error("linkages do not identify the parent")
	}
}

// A file that was opened read-only cannot be changed.
func TestOpenReadOnly(t *testing.T) {
	ctx := t.Context()
	m, f := newDisk(t, spec(disk.Differencing, 4*mib))
	must.Succeed(t, f.Allocate(ctx, []int64{1}))
	m.Forget() // the log is not empty
	r, err := OpenReadOnly(ctx, m)
	must.Succeed(t, err)
	one := []int64{1}
	for _, err := range []error{r.Allocate(ctx, one), r.Complete(ctx, one), r.Free(ctx, one), r.SetPresent(ctx, 1, 0, 1), r.Changing(ctx)} {
		if !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("error %v", err)
		}
	}
	must.Succeed(t, r.Close(ctx))
	if states(r) != "-P--" || m.Changes() != 0 {
		t.Errorf("states %s, %d changes", states(r), m.Changes())
	}
}

// A closed file cannot be used.
func TestFile_Closed(t *testing.T) {
	m, f := newDisk(t, spec(disk.Dynamic, 4*mib))
	closeFile(t, f)
	closeFile(t, f)
	m.Forget()
	if err := f.Allocate(t.Context(), []int64{0}); err == nil || m.Changes() > 0 {
		t.Error("a closed file was changed")
	}
}

// The cost of creating and filling large disks is bounded.
func TestFile_ManyBlocks(t *testing.T) {
	blocks := make([]int64, 10000)
	for i := range blocks {
		blocks[i] = int64(i)
	}
	for _, kind := range []disk.Kind{disk.Dynamic, disk.Differencing} {
		s := spec(kind, 1<<40)
		s.BlockLength = 0
		c := &sparse{delay: 15 * time.Microsecond}
		f, err := Create(t.Context(), c, s)
		must.Succeed(t, err)
		began := time.Now()
		c.calls = 0
		must.Succeed(t, f.Allocate(t.Context(), blocks))
		t.Logf("10,000 blocks: %d calls, %v", c.calls, time.Since(began))
		if c.calls > 30 || f.block(9999).Offset != f.block(0).Offset+9999*32*mib || f.block(0).Offset%(2*mib) != 0 {
			t.Errorf("%d calls; block 0 at %d, block 9999 at %d", c.calls, f.block(0).Offset, f.block(9999).Offset)
		}
	}
	c := &sparse{}
	began := time.Now()
	s := spec(disk.Fixed, 10<<30)
	s.BlockLength = 0
	_, err := Create(t.Context(), c, s)
	must.Succeed(t, err)
	if t.Logf("10 GiB: %d calls, %v", c.calls, time.Since(began)); c.calls > 40 {
		t.Errorf("%d calls for a fixed disk", c.calls)
	}
}
