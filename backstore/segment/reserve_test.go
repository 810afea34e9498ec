package segment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// fullDisk returns a Set with the given number of full segments of 8 blocks on a disk
// without a free block.
func fullDisk(t *testing.T, segments int) (*vfs.Mem, *Set, []Addr) {
	t.Helper()
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8, Reserve: 1})
	must.Succeed(t, s.FillReserve())
	var at []Addr
	for i := range segments {
		at = append(at, appendTo(t, s, blocks(i, 7)))
	}
	must.Succeed(t, s.Sync())
	m.SetCapacity(m.Used())
	return m, s, at
}

// TestSet_ReserveNames: something else that has the name of a file of the reserve keeps it
// from no other file.
func TestSet_ReserveNames(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, m.MkdirAll(fmt.Sprintf("/s/%08x.spare/directory", uint32(firstReserveID))))
	s := open(t, m, "/s", Options{SegmentBlocks: 8, Reserve: 1})
	must.Succeed(t, s.FillReserve())
	if !s.ReserveFull() {
		t.Error("the reserve is not full")
	}
	appendTo(t, s, blocks(1, 7))
}

// TestSet_AppendMoved: on a disk without a free block, segments are cleaned one after
// the other, and no other program gets the freed blocks.
func TestSet_AppendMoved(t *testing.T) {
	const segments = 8
	m, s, at := fullDisk(t, segments)
	if _, err := s.Append(blocks(99, 1)); !full(err) {
		t.Fatalf("append to a full disk: %v, want ENOSPC", err)
	}
	live := make(map[int]Addr) // three live blocks of each segment
	moved := func(i int) {
		t.Helper()
		a, err := s.AppendMoved(blocks(i, 7)[:3*BlockLength])
		must.Succeed(t, err)
		live[i] = a
		must.Succeed(t, s.Sync())
		must.Succeed(t, s.Remove(at[i].Segment))
	}
	for i := range segments {
		moved(i)
		if free, err := m.Free("/"); err != nil || free > 0 {
			t.Fatalf("%d bytes are free for other programs, %v", free, err)
		}
		if _, err := s.Append(blocks(99, 1)); !s.ReserveFull() && !full(err) {
			t.Fatalf("append into the reserve: %v, want ENOSPC", err)
		}
		must.Succeed(t, s.FillReserve())
	}
	for i, a := range live {
		wantData(t, s, a, blocks(i, 7)[:3*BlockLength])
	}
	if s.SpareBytes() == 0 {
		t.Fatal("cleaning freed no segment")
	}
	a := appendTo(t, s, blocks(99, 7))
	wantData(t, s, a, blocks(99, 7))
}

// TestSet_AppendMoved_CurrentWithoutBlocks: the current segment has room, and the disk
// has no free block.
func TestSet_AppendMoved_CurrentWithoutBlocks(t *testing.T) {
	m, s, at := fullDisk(t, 2)
	m.SetCapacity(0)
	appendTo(t, s, blocks(5, 1))
	must.Succeed(t, s.Sync())
	m.SetCapacity(m.Used())
	a, err := s.AppendMoved(blocks(0, 7))
	must.Succeed(t, err)
	wantData(t, s, a, blocks(0, 7))
	must.Succeed(t, s.Remove(at[0].Segment))
	must.Succeed(t, s.FillReserve())
	if !s.ReserveFull() {
		t.Error("the reserve was not filled from removed segments")
	}
}

// TestSet_FillReserve: without blocks for a long file the reserve has short files,
// which DropSpares and a restart keep.
func TestSet_FillReserve(t *testing.T) {
	m := vfs.NewMem()
	o := Options{SegmentBlocks: 8, Reserve: 1}
	s := open(t, m, "/s", o)
	var at []Addr
	for i := range 4 {
		at = append(at, appendTo(t, s, blocks(i, 2)))
		s.Seal()
	}
	must.Succeed(t, s.Sync())
	m.SetCapacity(m.Used())
	wantErr(t, "fill on a full disk", s.FillReserve(), syscall.ENOSPC)
	for _, a := range at {
		must.Succeed(t, s.Remove(a.Segment))
	}
	must.Succeed(t, s.FillReserve())
	must.Succeed(t, s.DropSpares(time.Now().Add(time.Hour)))
	if !s.ReserveFull() || s.SpareBytes() != 0 || s.TotalBytes() != 0 || s.ReserveBytes() != 12*BlockLength {
		t.Errorf("full %v, %d bytes spare, %d in all, %d in reserve", s.ReserveFull(), s.SpareBytes(), s.TotalBytes(), s.ReserveBytes())
	}
	must.Succeed(t, s.Close())
	m.SetCapacity(m.Used())
	s = open(t, m, "/s", o)
	must.Succeed(t, s.FillReserve())
	for i := range 4 {
		if _, err := s.AppendMoved(blocks(7, 2)); err != nil {
			t.Errorf("append %d after a restart: %v", i, err)
		}
	}
}

// TestSet_TotalBytes: TotalBytes is the length of the files after each operation.
func TestSet_TotalBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := vfs.NewMem()
	o := Options{SegmentBlocks: 8, Reserve: 1}
	s := open(t, m, "/s", o)
	for step := range 500 {
		switch rng.IntN(8) {
		case 0:
			if ids := s.List(); len(ids) > 0 {
				must.Succeed(t, s.Remove(ids[rng.IntN(len(ids))]))
			}
		case 1:
			s.Seal()
		case 2:
			must.Succeed(t, s.DropSpares(time.Now().Add(-time.Duration(rng.IntN(2))*time.Hour)))
		case 3:
			_, err := s.AppendMoved(blocks(step, 1+rng.IntN(7)))
			must.Succeed(t, err)
		case 4:
			must.Succeed(t, s.FillReserve())
		case 5:
			must.Succeed(t, s.Close())
			s = open(t, m, "/s", o)
			for _, id := range s.List() {
				s.Bytes(id)
			}
		default:
			appendTo(t, s, blocks(step, 1+rng.IntN(7)))
		}
		// After a restart a spare file counts as a full segment.
		got, want := s.TotalBytes()+s.ReserveBytes(), m.Used()
		spares := int64(0)
		for _, name := range files(t, m) {
			if strings.HasSuffix(name, spareSuffix) {
				spares++
			}
		}
		if got < want || got > want+(spares+1)*7*BlockLength {
			t.Fatalf("step %d: TotalBytes = %d, want %d: %v", step, got, want, files(t, m))
		}
	}
}

// TestSet_GiveUp: a removed segment's file is passed to the giveUp function, unless a
// reader has it.
func TestSet_GiveUp(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, m.MkdirAll("/s"))
	var given []string
	blobs, err := DirGiving(m, "/s", func(path string) error {
		given = append(given, path)
		return m.Remove(path)
	})
	must.Succeed(t, err)
	s, err := Open(Options{Blobs: blobs, StoreID: [16]byte{1}, SegmentBlocks: 8})
	must.Succeed(t, err)
	defer s.Close()
	a, b := appendTo(t, s, blocks(1, 7)), appendTo(t, s, blocks(2, 7))
	must.Succeed(t, s.Sync())
	h, err := s.cache.acquire(b.Segment) // a reader
	must.Succeed(t, err)
	must.Succeed(t, s.Remove(a.Segment))
	must.Succeed(t, s.Remove(b.Segment))
	h.release()
	must.Succeed(t, s.DropSpares(time.Now().Add(time.Hour)))
	if want := []string{fmt.Sprintf("/s/%08x.spare", uint32(a.Segment))}; !slices.Equal(given, want) {
		t.Errorf("given up: %v, want %v", given, want)
	}
}

// TestSet_GiveUpSpare: a spare file that is too short for its new owner is kept, since
// another program could take its blocks, until there are two of them for one.
func TestSet_GiveUpSpare(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8})
	spareOf := func(n int) {
		t.Helper()
		a := appendTo(t, s, blocks(n, n))
		s.Seal()
		must.Succeed(t, s.Sync())
		must.Succeed(t, s.Remove(a.Segment))
	}
	const wanted = 6 * BlockLength
	spareOf(2)
	if given, err := s.GiveUpSpare(wanted); given || err != nil || s.SpareBytes() != 3*BlockLength {
		t.Errorf("short file: given %v, %v; %d bytes spare", given, err, s.SpareBytes())
	}
	long := appendTo(t, s, blocks(7, 7)) // uses the short file, and makes it longer
	s.Seal()
	short := appendTo(t, s, blocks(2, 2))
	must.Succeed(t, s.Sync())
	must.Succeed(t, s.Remove(short.Segment))
	must.Succeed(t, s.Remove(long.Segment))
	if given, err := s.GiveUpSpare(wanted); !given || err != nil || s.SpareBytes() != 3*BlockLength {
		t.Errorf("long file next to a short one: given %v, %v; %d bytes spare", given, err, s.SpareBytes())
	}
}

// TestSet_FillReserve_longer: a long file that joins short ones in the reserve makes
// those that are superfluous spare.
func TestSet_FillReserve_longer(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8, Reserve: 1})
	var at []Addr
	for i, n := range []int{4, 7} {
		at = append(at, appendTo(t, s, blocks(i, n)))
		s.Seal()
	}
	must.Succeed(t, s.Sync())
	m.SetCapacity(m.Used())
	must.Succeed(t, s.Remove(at[0].Segment))
	wantErr(t, "fill with a short file", s.FillReserve(), syscall.ENOSPC)
	must.Succeed(t, s.Remove(at[1].Segment))
	must.Succeed(t, s.FillReserve())
	if s.ReserveBytes() != 8*BlockLength || s.SpareBytes() != 5*BlockLength {
		t.Errorf("%d bytes in reserve, %d spare", s.ReserveBytes(), s.SpareBytes())
	}
}
