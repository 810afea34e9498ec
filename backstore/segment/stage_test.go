package segment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// TestSet_WriteOut gathers pieces, and reads arbitrary ranges of gathered data, written
// data, or both.
func TestSet_WriteOut(t *testing.T) {
	m := vfs.NewMem()
	var writes atomic.Int64
	s := open(t, m, "/s", Options{Gather: 4 * BlockLength, SegmentBlocks: 400})
	m.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpWrite {
			writes.Add(1)
		}
		return nil
	})
	rng := rand.New(rand.NewPCG(1, 1))
	all := blocks(99, 1) // contents of segment 1 from block 0 on
	var pieces int64
	for i := range 300 {
		p := blocks(i, 1+rng.IntN(4)+2*(rng.IntN(10)/9))
		a := appendTo(t, s, p)
		if a.Segment > 1 {
			break
		}
		if pieces++; int(a.Block)*BlockLength != len(all) {
			t.Fatalf("append went to %v, after %d bytes", a, len(all))
		}
		all = append(all, p...)
		if rng.IntN(8) == 0 {
			must.Succeed(t, s.WriteOut())
			left := m.ProcessClone()
			wantData(t, open(t, left, "/s", Options{}), a, p)
		}
		for range 4 {
			off := BlockLength + rng.IntN(len(all)-BlockLength)
			got := make([]byte, 1+rng.IntN(len(all)-off))
			must.Succeed(t, s.ReadAtOffset(Addr{1, 1}, off-BlockLength, got))
			if !bytes.Equal(got, all[off:off+len(got)]) {
				t.Fatalf("%d other bytes at %d", len(got), off)
			}
		}
	}
	if n := writes.Load(); n > pieces*2/3 {
		t.Errorf("%d writes of %d pieces", n, pieces)
	}
	must.Succeed(t, s.Sync())
	got := make([]byte, len(all)-BlockLength)
	left := open(t, m.CrashClone(rng), "/s", Options{})
	must.Succeed(t, left.ReadAt(Addr{1, 1}, got))
	if !bytes.Equal(got, all[BlockLength:]) {
		t.Error("synced data does not exist after a power cut")
	}
}

// TestSet_WriteOut_Fails: data that cannot be written remains readable, and is written
// after the fault ends. An Append without blocks on a full disk fails immediately.
func TestSet_WriteOut_Fails(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{Gather: 4 * BlockLength})
	first := appendTo(t, s, blocks(1, 2)) // makes the segment
	second := appendTo(t, s, blocks(2, 2))
	m.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpWrite {
			return syscall.EIO
		}
		return nil
	})
	for range 3 {
		wantErr(t, "write out", s.WriteOut(), syscall.EIO)
		wantErr(t, "sync", s.Sync(), syscall.EIO)
		wantData(t, s, second, blocks(2, 2))
	}
	third := appendTo(t, s, blocks(3, 3))
	m.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpAllocate || kind == vfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	s.mu.Lock()
	s.assigned = int64(s.free) * BlockLength
	s.mu.Unlock()
	if _, err := s.Append(blocks(4, 1)); err == nil {
		t.Error("an append without blocks on the disk was gathered")
	}
	m.SetHook(nil)
	must.Succeed(t, s.Sync())
	left := open(t, m.CrashClone(rand.New(rand.NewPCG(1, 2))), "/s", Options{})
	for i, a := range []Addr{first, second, third} {
		wantData(t, left, a, blocks(i+1, min(i/2+2, 3)))
	}
}

// TestSet_WriteOut_Remove: a segment can be removed, and its file reused, while pieces
// of it are in memory.
func TestSet_WriteOut_Remove(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{Gather: 4 * BlockLength})
	appendTo(t, s, blocks(1, 2))
	gone := appendTo(t, s, blocks(2, 2))
	must.Succeed(t, s.Remove(gone.Segment))
	if err := s.ReadAt(gone, make([]byte, BlockLength)); err == nil {
		t.Error("read of a removed segment succeeds")
	}
	appendTo(t, s, blocks(3, 1))
	a := appendTo(t, s, blocks(4, 2))
	must.Succeed(t, s.Sync())
	wantData(t, open(t, m.ProcessClone(), "/s", Options{}), a, blocks(4, 2))
}

func TestSet_WriteOut_Concurrent(t *testing.T) {
	s := open(t, vfs.NewMem(), "/s", Options{Gather: 4 * BlockLength, SegmentBlocks: 200})
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			for i := range 200 {
				p := blocks(w*1000+i, 1+i%5)
				a, err := s.Append(p)
				if err != nil {
					t.Error(err)
					return
				}
				if i%7 == w {
					if err := s.WriteOut(); err != nil {
						t.Error(err)
					}
				}
				got := make([]byte, len(p))
				if err := s.ReadAt(a, got); err != nil || !bytes.Equal(got, p) {
					t.Errorf("%v: %v", fmt.Sprint(a), err)
				}
			}
		})
	}
	all.Wait()
	must.Succeed(t, s.Sync())
}
