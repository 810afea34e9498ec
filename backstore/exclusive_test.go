package backstore

import (
	"context"
	"math/rand/v2"
	"testing"
)

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
