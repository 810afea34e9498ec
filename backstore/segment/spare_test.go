package segment

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func files(t *testing.T, m *vfs.Mem) []string {
	t.Helper()
	names, err := m.List("/s")
	must.Succeed(t, err)
	return names
}

func wantFiles(t *testing.T, m *vfs.Mem, want ...string) {
	t.Helper()
	if got := files(t, m); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func TestSet_ReusesFiles(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8})
	a, b := appendTo(t, s, blocks(1, 7)), appendTo(t, s, blocks(2, 7))
	must.Succeed(t, s.Sync())
	must.Succeed(t, s.Remove(a.Segment))
	wantFiles(t, m, "00000001.spare", "00000002.seg")
	wantErr(t, "read", s.ReadAt(a, make([]byte, BlockLength)), fs.ErrNotExist)
	if got := s.List(); !slices.Equal(got, []ID{2}) || s.SpareBytes() != 8*BlockLength {
		t.Errorf("segments %v, %d bytes spare", got, s.SpareBytes())
	}
	c := appendTo(t, s, blocks(3, 2))
	wantFiles(t, m, "00000002.seg", "00000003.seg")
	if s.SpareBytes() != 0 || c != (Addr{3, 1}) {
		t.Errorf("%d bytes spare, appended to %v", s.SpareBytes(), c)
	}
	wantData(t, s, b, blocks(2, 7))
	wantData(t, s, c, blocks(3, 2))

	must.Succeed(t, s.Remove(b.Segment))
	must.Succeed(t, s.DropSpares(time.Now().Add(-time.Hour)))
	wantFiles(t, m, "00000002.spare", "00000003.seg")
	must.Succeed(t, s.DropSpares(time.Now().Add(time.Hour)))
	wantFiles(t, m, "00000003.seg")
}

func TestOpen_FindsSpares(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8})
	a := appendTo(t, s, blocks(1, 7))
	must.Succeed(t, s.Remove(a.Segment))
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", Options{SegmentBlocks: 8})
	if s.SpareBytes() == 0 || len(s.List()) != 0 {
		t.Errorf("%d bytes spare, segments %v", s.SpareBytes(), s.List())
	}
	b := appendTo(t, s, blocks(2, 1))
	wantData(t, s, b, blocks(2, 1))
	wantFiles(t, m, "00000002.seg")
}

// TestSet_NotReused: a file that may have a reader, or is not a segment of this Set, is
// deleted.
func TestSet_NotReused(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, m *vfs.Mem, s *Set, a Addr)
	}{
		{"segment being read", func(t *testing.T, _ *vfs.Mem, s *Set, a Addr) {
			h, err := s.cache.acquire(a.Segment)
			must.Succeed(t, err)
			must.Succeed(t, s.Remove(a.Segment))
			appendTo(t, s, blocks(9, 7))
			p := make([]byte, BlockLength)
			if _, err := h.blob.ReadAt(p, BlockLength); err != nil || !bytes.Equal(p, blocks(1, 1)) {
				t.Error("read after Remove:", err)
			}
			h.release()
		}},
		{"evicted while being read", func(t *testing.T, _ *vfs.Mem, s *Set, a Addr) {
			h, err := s.cache.acquire(a.Segment)
			must.Succeed(t, err)
			for i := range 4 { // MaxOpen is 1
				b := appendTo(t, s, blocks(20+i, 7))
				must.Succeed(t, s.Sync())
				wantData(t, s, b, blocks(20+i, 7))
			}
			must.Succeed(t, s.Remove(a.Segment))
			h.release()
		}},
		{"longer than a segment", func(t *testing.T, m *vfs.Mem, s *Set, a Addr) {
			f, err := m.Open("/s/00000001.seg")
			must.Succeed(t, err)
			must.Succeed(t, f.Truncate(9*BlockLength))
			must.Succeed(t, f.Close())
			must.Succeed(t, s.Remove(a.Segment))
		}},
		{"a file that became another segment before the power was cut", func(t *testing.T, m *vfs.Mem, s *Set, a Addr) {
			f, err := m.Open("/s/00000001.seg")
			must.Succeed(t, err)
			must.Succeed(t, writeHeader(f, store, 5))
			must.Succeed(t, f.Close())
			must.Succeed(t, s.Remove(a.Segment))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := vfs.NewMem()
			s := open(t, m, "/s", Options{SegmentBlocks: 8, MaxOpen: 1})
			a := appendTo(t, s, blocks(1, 7))
			must.Succeed(t, s.Sync())
			test.do(t, m, s, a)
			for _, name := range files(t, m) {
				if name[8:] != suffix {
					t.Errorf("%s is kept", name)
				}
			}
			if s.SpareBytes() != 0 {
				t.Errorf("%d bytes are kept", s.SpareBytes())
			}
		})
	}
}

// TestOpen_SparesWithoutBlocks: on a full disk, the spare files of an earlier process
// count for their blocks, not for their length or that of a segment, and data for which
// they have no blocks is refused at once, not when it is written out.
func TestOpen_SparesWithoutBlocks(t *testing.T) {
	for _, test := range []struct {
		name    string
		written int64 // bytes
		size    int64
		room    int64 // bytes with blocks
	}{
		{"empty", 0, 0, 0},
		{"short", 3*BlockLength - 100, 3*BlockLength - 100, 3*BlockLength - 100},
		{"a hole at the end", 2 * BlockLength, 8 * BlockLength, 2 * BlockLength},
		{"a hole after the header", BlockLength, 8 * BlockLength, 0},
		{"only a hole", 0, 8 * BlockLength, 0},
		{"whole", 8 * BlockLength, 8 * BlockLength, 8 * BlockLength},
		{"too long", 8 * BlockLength, 90 * BlockLength, 8 * BlockLength},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := vfs.NewMem()
			must.Succeed(t, m.MkdirAll("/s"))
			f, err := m.Create("/s/00000003.spare")
			must.Succeed(t, err)
			_, err = f.WriteAt(make([]byte, test.written), 0)
			must.Succeed(t, err)
			must.Succeed(t, errors.Join(f.Truncate(test.size), f.Close()))
			m.SetCapacity(max(m.Used(), 1))
			s := open(t, m, "/s", Options{SegmentBlocks: 8, Gather: 4 * BlockLength})
			if got := s.RoomBytes(); got != test.room {
				t.Errorf("room for %d bytes, want %d", got, test.room)
			}
			appended := int64(0)
			for i := range 8 {
				a, err := s.Append(blocks(i, 1))
				if err == nil {
					appended++
					must.Succeed(t, s.WriteOut())
					wantData(t, s, a, blocks(i, 1))
				} else {
					wantErr(t, "append", err, syscall.ENOSPC)
				}
			}
			if least := test.room/BlockLength - 1; appended < least {
				t.Errorf("%d blocks were appended, want %d", appended, least)
			}
			must.Succeed(t, s.Sync())
		})
	}
}

// TestSet_RemoveWithHoles: the file of a removed segment that has a hole is a spare up to
// that on a full disk.
func TestSet_RemoveWithHoles(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8})
	a := appendTo(t, s, blocks(1, 2))
	s.Seal()
	must.Succeed(t, s.Sync())
	f, err := m.Open("/s/00000001.seg")
	must.Succeed(t, err)
	must.Succeed(t, errors.Join(f.Truncate(8*BlockLength), f.Close()))
	m.SetCapacity(m.Used())
	must.Succeed(t, s.Remove(a.Segment))
	if s.SpareBytes() != 3*BlockLength {
		t.Errorf("%d bytes are spare", s.SpareBytes())
	}
	wantFiles(t, m, "00000001.spare")
}
