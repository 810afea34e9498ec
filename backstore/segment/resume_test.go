package segment

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// TestSet_Resume: a process that ends after it has moved a part of a segment leaves the next
// one what is left of the file of the reserve that it moved to, and no more.
func TestSet_Resume(t *testing.T) {
	m, s, at := fullDisk(t, 2)
	a, err := s.AppendMoved(blocks(0, 3))
	must.Succeed(t, err, s.Sync())
	if s.SealToClean(3) {
		t.Error("a segment whose rest is all the room that there is was sealed")
	}
	must.Succeed(t, s.Close())
	m.SetTaken(true)
	o := Options{SegmentBlocks: 8, Reserve: 1}
	s = open(t, m, "/s", o)
	wantErr(t, "fill", s.FillReserve(), syscall.ENOSPC)
	if _, err := s.AppendMoved(blocks(1, 1)); !full(err) {
		t.Fatalf("append without a file: %v", err)
	}
	id, ok := s.Rest()
	if !ok || id != a.Segment {
		t.Fatalf("rest: %d, %v; want %d", id, ok, a.Segment)
	}
	if bytes, err := s.Resume(id, a.Block+3); err != nil || bytes != 4*BlockLength {
		t.Fatalf("resume: %d bytes, %v", bytes, err)
	}
	if _, ok := s.Rest(); ok || s.MovedBytes() != 4*BlockLength {
		t.Errorf("%d bytes to move to; another rest: %v", s.MovedBytes(), ok)
	}
	if _, err := s.Append(blocks(9, 1)); !full(err) {
		t.Errorf("new data in what is left: %v", err)
	}
	b, err := s.AppendMoved(blocks(5, 4))
	must.Succeed(t, err, s.Sync())
	wantData(t, s, a, blocks(0, 3))
	wantData(t, s, b, blocks(5, 4))
	if _, err := s.AppendMoved(blocks(1, 1)); !full(err) {
		t.Errorf("append to a full segment: %v", err)
	}
	must.Succeed(t, s.Remove(at[0].Segment), s.FillReserve())
	if !s.SealToClean(7) {
		t.Error("a segment was not sealed though the reserve is full")
	}
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", o)
	wantData(t, s, a, blocks(0, 3))
	wantData(t, s, b, blocks(5, 4))
}

// TestSet_Resume_Nothing: no segment is gone on with that has no blocks after its data, or
// another length than a segment; and none of a full reserve.
func TestSet_Resume_Nothing(t *testing.T) {
	m, s, at := fullDisk(t, 2)
	if id, ok := s.Rest(); ok {
		t.Errorf("rest of a Set with a current segment: %d", id)
	}
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", Options{SegmentBlocks: 8, Reserve: 1})
	must.Succeed(t, s.FillReserve())
	if id, ok := s.Rest(); ok {
		t.Errorf("rest of a Set whose reserve is full: %d", id)
	}
	for _, end := range []uint32{8, 9, 1 << 31} {
		if bytes, err := s.Resume(at[1].Segment, end); bytes != 0 || err != nil {
			t.Errorf("resume at block %d: %d bytes, %v", end, bytes, err)
		}
	}
	if _, err := s.Resume(77, 1); err == nil {
		t.Error("a segment that does not exist was resumed")
	}
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", Options{SegmentBlocks: 4, Reserve: 1})
	if bytes, err := s.Resume(at[1].Segment, 1); bytes != 0 || err != nil {
		t.Errorf("resume of a longer segment: %d bytes, %v", bytes, err)
	}
}

// TestSet_ReserveOfHoles: a file with a hole, which a write that failed on a full disk
// leaves, is of use up to there.
func TestSet_ReserveOfHoles(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, m.MkdirAll("/s"))
	f, err := m.Create("/s/00000007.spare")
	must.Succeed(t, err, f.Allocate(5*BlockLength))
	_, err = f.WriteAt(make([]byte, BlockLength), 7*BlockLength)
	must.Succeed(t, err, f.Close())
	m.SetCapacity(m.Used())
	m.SetTaken(true)
	used := m.Used()
	s := open(t, m, "/s", Options{SegmentBlocks: 8, Reserve: 1})
	wantErr(t, "fill", s.FillReserve(), syscall.ENOSPC)
	if s.ReserveBytes() != 5*BlockLength || m.Used() != used {
		t.Errorf("%d bytes in reserve, %d on the disk, before %d", s.ReserveBytes(), m.Used(), used)
	}
	a, err := s.AppendMoved(blocks(1, 4))
	must.Succeed(t, err)
	wantData(t, s, a, blocks(1, 4))
	if _, err := s.AppendMoved(blocks(1, 1)); !full(err) {
		t.Errorf("append beyond the blocks: %v", err)
	}
}

// TestSet_SpareKept: a file of the store that cannot be renamed, opened or written to
// keeps its blocks, and is used when it can.
func TestSet_SpareKept(t *testing.T) {
	failing := errors.New("the disk fails")
	for name, fails := range map[string]func(kind vfs.OpKind, name string) bool{
		"rename": func(kind vfs.OpKind, name string) bool { return kind == vfs.OpRename },
		"open":   func(kind vfs.OpKind, name string) bool { return kind == vfs.OpOpen && strings.HasSuffix(name, suffix) },
		"header": func(kind vfs.OpKind, name string) bool { return kind == vfs.OpWrite && strings.HasSuffix(name, suffix) },
	} {
		t.Run(name, func(t *testing.T) {
			m, s, at := fullDisk(t, 2)
			must.Succeed(t, s.Remove(at[0].Segment)) // spare: the reserve is full
			m.SetTaken(true)
			used := m.Used()
			m.SetHook(func(kind vfs.OpKind, name string) error {
				if fails(kind, name) {
					return failing
				}
				return nil
			})
			wantErr(t, "append", appendErr(s.Append(blocks(1, 7))), failing)
			wantErr(t, "append of moved data", appendErr(s.AppendMoved(blocks(2, 7))), failing)
			m.SetHook(nil)
			if m.Used() != used {
				t.Errorf("%d bytes on the disk, before %d: %v", m.Used(), used, files(t, m))
			}
			must.Succeed(t, s.FillReserve())
			a, b := appendTo(t, s, blocks(1, 7)), Addr{}
			var err error
			b, err = s.AppendMoved(blocks(2, 7))
			must.Succeed(t, err)
			wantData(t, s, a, blocks(1, 7))
			wantData(t, s, b, blocks(2, 7))
		})
	}
}

func appendErr(_ Addr, err error) error { return err }
