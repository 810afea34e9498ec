package scsi

import (
	"testing"

	"github.com/sirupsen/logrus"

	"odx/backstore"
)

// newStoreFixture is a fixture whose logical unit is a volume of a real extent
// store with the given options.
func newStoreFixture(t testing.TB, o backstore.Options, size int64) (*fixture, *backstore.Store) {
	t.Helper()
	o.Dir = t.TempDir()
	o.Log = logrus.NewEntry(logrus.New())
	o.Log.Logger.SetOutput(t.Output())
	store, err := backstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	volume, err := store.CreateVolume(t.Context(), "disk", size)
	if err != nil {
		t.Fatal(err)
	}
	return newFixture(t, func(c *LUConfig) { c.Volume, c.ID = volume, volume.ID() }), store
}
