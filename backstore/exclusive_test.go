package backstore

import (
	"context"
	"maps"
	"math/rand/v2"
	"testing"
)

func TestExclusiveBytes(t *testing.T) {
	const mib = 1 << 20
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	write := func(name string, seed uint64, off int64) {
		t.Helper()
		v, err := s.Volume(name)
		if err == nil {
			err = v.WriteAt(ctx, randomBytes(seed, mib), off)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want map[string]int64) {
		t.Helper()
		got, err := s.ExclusiveBytes(ctx)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", what, got, err, want)
		}
	}
	createVolume(t, s, "a", 8*mib)
	write("a", 1, 0)
	want("one volume", map[string]int64{"a": mib})
	write("a", 1, 4*mib)
	want("the same data twice in it", map[string]int64{"a": mib})
	createVolume(t, s, "b", 8*mib)
	write("b", 1, mib)
	write("b", 2, 6*mib)
	want("and in another volume", map[string]int64{"a": 0, "b": mib})
	if _, err := s.CloneVolume(ctx, "b", "c"); err != nil {
		t.Fatal(err)
	}
	want("a clone", map[string]int64{"a": 0, "b": 0, "c": 0})
	write("c", 3, 4*mib)
	want("which is written to", map[string]int64{"a": 0, "b": 0, "c": mib})
	write("c", 4, 6*mib)
	want("in a place of its origin", map[string]int64{"a": 0, "b": mib, "c": 2 * mib})
	v, err := s.Volume("c")
	if err != nil {
		t.Fatal(err)
	}
	n, err := v.Snapshot(ctx, []Range{{Offset: 4 * mib, Length: mib}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The snapshot shares whole leaves of 2 MiB, which hold no more here.
	want("a snapshot of a part", map[string]int64{"a": 0, "b": mib, "c": mib})
	if err := s.DeleteSnapshot(ctx, n.ID()); err != nil {
		t.Fatal(err)
	}
	n.Release()
	reaped(t, s)
	want("which is deleted", map[string]int64{"a": 0, "b": mib, "c": 2 * mib})
}

// TestExclusiveBytesAreWhatDeletingGivesBack, whatever happened before.
func TestExclusiveBytesAreWhatDeletingGivesBack(t *testing.T) {
	forSeeds(t, 3, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d, o := newDisk(), drawOptions(rng)
		h := newHistory(t, rng, func() (*Store, error) { return Open(context.Background(), d.options(o)) })
		for range 60 {
			h.step()
		}
		s := h.store
		for _, v := range s.Volumes() {
			reaped(t, s)
			bytes, err := s.ExclusiveBytes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			before := s.LiveBytes()
			if err := s.DeleteVolume(t.Context(), v.Name()); err != nil {
				t.Fatal(err)
			}
			reaped(t, s)
			if got := before - s.LiveBytes(); got != bytes[v.Name()] {
				t.Errorf("deleting %s gave %d bytes back, %d were exclusive", v.Name(), got, bytes[v.Name()])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
