//go:build invariants

package backstore

import (
	"context"
	"testing"

	"odx/backstore/extent"
)

// TestStoreChecksItself shows that the checks of a build with invariants notice
// what they are for.
func TestStoreChecksItself(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, s *Store, v *Volume)
	}{
		{"snapshot released twice", func(t *testing.T, s *Store, v *Volume) {
			n := takeSnapshot(t, v)
			n.Release()
			n.Release()
		}},
		{"snapshot read after its release", func(t *testing.T, s *Store, v *Volume) {
			n := takeSnapshot(t, v)
			n.Release()
			n.ReadAt(context.Background(), make([]byte, 1), 0)
		}},
		{"plan put back twice", func(t *testing.T, s *Store, v *Volume) {
			p := s.writer.newPlan()
			s.writer.discard(p)
			s.writer.discard(p)
		}},
		{"reference taken from an extent that has none left", func(t *testing.T, s *Store, v *Volume) {
			if err := s.parts.extents.Unref([]extent.Slot{s.parts.extents.Slot(1, 0)}); err != nil {
				t.Fatal(err)
			}
			s.life.fail(s.parts.extents.Unref([]extent.Slot{s.parts.extents.Slot(1, 0)}))
		}},
		{"map refers to an extent that is gone", func(t *testing.T, s *Store, v *Volume) {
			if err := s.parts.extents.Unref([]extent.Slot{s.parts.extents.Slot(1, 0)}); err != nil {
				t.Fatal(err)
			}
			v.ReadAt(context.Background(), make([]byte, BlockLength), 0)
		}},
		{"node dropped twice", func(t *testing.T, s *Store, v *Volume) {
			s.parts.forest.Drop(v.root)
			s.parts.forest.Drop(v.root)
		}},
		{"dropped node shared", func(t *testing.T, s *Store, v *Volume) {
			s.parts.forest.Drop(v.root)
			s.parts.forest.Hold(v.root)
		}},
		{"extent unpinned that is not pinned", func(t *testing.T, s *Store, v *Volume) {
			s.parts.extents.Unpin(1)
		}},
		{"change outside an operation", func(t *testing.T, s *Store, v *Volume) {
			s.opMu.RUnlock()
			defer s.opMu.RLock()
			s.parts.extents.Ref([]extent.Slot{s.parts.extents.Slot(1, 0)})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newDisk().open(t, 4<<10)
			v := createVolume(t, s, "v", 1<<20)
			if err := v.WriteAt(context.Background(), content([]uint32{1, 2, 3, 4, 5, 6, 7, 8}), 0); err != nil {
				t.Fatal(err)
			}
			// The store is left as it is: what comes next would only panic again.
			s.life.cancel()
			s.life.background.Wait()
			s.opMu.RLock()
			defer s.opMu.RUnlock()
			defer func() {
				if recover() == nil {
					t.Error("nothing was noticed")
				}
			}()
			tt.do(t, s, v)
		})
	}
}

func takeSnapshot(t *testing.T, v *Volume) *Snapshot {
	t.Helper()
	n, err := v.Snapshot(context.Background(), []Range{{Length: BlockLength}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
