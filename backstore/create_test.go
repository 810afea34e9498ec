package backstore

import (
	"testing"

	"odx/internal/kit/must"
)

// TestOptions_FingerprintKey: a new store gets the given key, so that stores that share it know
// equal data by the same fingerprint; without one, and where the store exists, the key is its own.
func TestOptions_FingerprintKey(t *testing.T) {
	shared, other := [32]byte{1, 2, 3}, [32]byte{4}
	keyOf := func(d *disk, given *[32]byte) (key [32]byte) {
		t.Helper()
		s, err := Open(t.Context(), d.options(Options{FingerprintKey: given}))
		must.Succeed(t, err)
		defer func() { must.Succeed(t, s.Close()) }()
		v, err := s.Volume("v")
		if err != nil {
			v, err = s.CreateVolume(t.Context(), "v", 1<<20)
			must.Succeed(t, err)
		}
		key, _, err = v.FingerprintKey()
		must.Succeed(t, err)
		return key
	}
	one, two, random := newDisk(), newDisk(), newDisk()
	for _, d := range []*disk{one, two} {
		if keyOf(d, &shared) != shared {
			t.Error("a new store has another key than the given one")
		}
	}
	if key := keyOf(one, &other); key != shared {
		t.Errorf("an existing store has got another key: %x", key)
	}
	if key := keyOf(random, nil); key == shared || key == [32]byte{} {
		t.Errorf("without a given key it is %x", key)
	}
}
