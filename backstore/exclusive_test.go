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
		for _, v := range append(s.Volumes(), s.Files()...) {
			reaped(t, s)
			bytes, files, err := s.ExclusiveBytes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			before, remove := s.LiveBytes(), s.DeleteVolume
			if v.file {
				bytes, remove = files, s.DeleteFile
			}
			if err := remove(t.Context(), v.Name()); err != nil {
				t.Fatal(err)
			}
			reaped(t, s)
			if got, ok := bytes[v.Name()]; !ok || got != before-s.LiveBytes() {
				t.Errorf("deleting %v gave %d bytes back, %d were exclusive", v, before-s.LiveBytes(), got)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
