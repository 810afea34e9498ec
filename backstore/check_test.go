package backstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// TestCheckFindings tampers with each kind of structure, and wants the finding
// that names it.
func TestCheckFindings(t *testing.T) {
	ctx := context.Background()
	move := func(s *Store, id extent.ID, to segment.Addr) error {
		x, _, err := s.extents.Get(id)
		if err == nil {
			_, err = s.extents.Move(id, x.Addr, to)
		}
		return err
	}
	for name, tt := range map[string]struct {
		tamper func(s *Store, v *Volume) error
		want   string
	}{
		"extent with a reference too many": {
			func(s *Store, _ *Volume) error { return s.extents.Ref([]extent.Slot{s.extents.Slot(2, 0)}) },
			"extent 2 has a reference count of 5 and 4 references",
		},
		"extent with a reference too few": {
			func(s *Store, _ *Volume) error { return s.extents.Unref([]extent.Slot{s.extents.Slot(2, 0)}) },
			"extent 2 has a reference count of 3 and 4 references",
		},
		"node with a reference too many": {
			func(s *Store, v *Volume) error { return s.forest.Hold(v.root) },
			"map node 1 has a reference count of 2 and 1 references",
		},
		"tree without an owner": {
			func(s *Store, v *Volume) error { v.root = blockmap.Root{Level: v.root.Level}; return nil },
			"map node 1 is stored, and nothing refers to it",
		},
		"extent on another": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1, Block: 5}) },
			"extent 3 lies on another extent at segment 00000001 block 5",
		},
		"extent on the header": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1}) },
			"extent 3 has 4 blocks at segment 00000001 block 0, which has 65",
		},
		"extent beyond the end": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1, Block: 62}) },
			"extent 3 has 4 blocks at segment 00000001 block 62, which has 65",
		},
		"segment that is missing": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 9, Block: 1}) },
			"segment 00000009 is missing or is no segment of this store; 1 extents lie in it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDisk().open(t, 16<<10)
			defer s.Close()
			v := createVolume(t, s, "v", 1<<20)
			if err := v.WriteAt(ctx, randomBytes(1, 256<<10), 0); err != nil {
				t.Fatal(err)
			}
			if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
				t.Fatalf("before it: %v %v", findings, err)
			}
			s.opMu.RLock()
			err := tt.tamper(s, v)
			s.opMu.RUnlock()
			if err != nil {
				t.Fatal(err)
			}
			findings, err := s.Check(ctx)
			if err != nil || len(findings) == 0 || !strings.Contains(strings.Join(findings, "\n"), tt.want) {
				t.Errorf("got %v %v, want %s", findings, err, tt.want)
			}
		})
	}
}

func TestCheckBoundsItsFindings(t *testing.T) {
	const blocks = maxFindings + 100
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(ctx, randomBytes(1, blocks*BlockLength), 0); err != nil {
		t.Fatal(err)
	}
	s.opMu.RLock()
	for id := range extent.ID(blocks) {
		if err := s.extents.Ref([]extent.Slot{s.extents.Slot(id+1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	s.opMu.RUnlock()
	findings, err := s.Check(ctx)
	if err != nil || len(findings) != maxFindings+1 || findings[maxFindings] != "and 100 more" {
		t.Errorf("%d findings, %v", len(findings), err)
	}
	canceled, cancel := context.WithCancel(ctx)
	s.opts.FS.(*vfs.Mem).SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync {
			cancel()
		}
		return nil
	})
	if _, err := s.Check(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestCheckWaitsForNoQuiet: a store that is written to all the time is checked
// nevertheless, here with a write in the middle of each checkpoint.
func TestCheckWaitsForNoQuiet(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	checkpoints := 0
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind != vfs.OpRename || !strings.Contains(name, redoName) {
			return nil
		}
		if checkpoints++; checkpoints > 10 {
			return fmt.Errorf("checkpoint %d", checkpoints)
		}
		if !s.opMu.TryRLock() {
			return nil // the hook of the last one, which writers wait for
		}
		s.opMu.RUnlock()
		return v.WriteAt(ctx, randomBytes(uint64(checkpoints), 4096), 0)
	})
	findings, err := s.Check(ctx)
	if err != nil || len(findings) > 0 || checkpoints == 0 {
		t.Errorf("%v %v after %d checkpoints", findings, err, checkpoints)
	}
	d.fs.SetHook(nil)
}

// TestCheckKnowsPins: an extent that a writer has just found to be what it wants
// to write may be without a reference.
func TestCheckKnowsPins(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 4096)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	plan := s.newPlan()
	if err := s.prepare(plan, v.number, 1, data); err != nil {
		t.Fatal(err)
	}
	if err := v.Zero(ctx, 0, 4096); err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error("with a pin:", findings, err)
	}
	s.opMu.RLock()
	err := s.discard(plan)
	s.opMu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error("afterwards:", findings, err)
	}
}

// TestCheckBesideWriters: what writers are in the middle of is no finding.
func TestCheckBesideWriters(t *testing.T) {
	const size = 4 << 20
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", size)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for w := range uint64(4) {
		busy.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// Few contents: extents lose their last reference while another
				// writer has just found them to be what it wants to write.
				off := int64((i*7+w)%(size>>14)) << 14
				if err := v.WriteAt(ctx, randomBytes(i%3, 16<<10), off); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
			t.Error(findings, err)
			break
		}
	}
	close(stop)
	busy.Wait()
}
