package target

import (
	"fmt"
	"testing"

	"odx/blockdev"
)

// TestDedup_off: the key of a LUN, and of an access entry that shows it, turn
// deduplication off for what is below, and for nothing else.
func TestDedup_off(t *testing.T) {
	dir := t.TempDir()
	s := start(t, parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)))
	if _, err := s.store.CreateVolume(t.Context(), "under", 4<<20); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	s = start(t, parse(t, dir, `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: shared, size: 4MiB}
      - {lun: 1, volume: own, size: 4MiB, dedup: false}
      - {lun: 2, volume: tenant, size: 4MiB}
      - {lun: 3, view: part}
    access:
      - {initiators: ["iqn.a"], luns: [{lun: 2}], dedup: false}
      - {initiators: ["iqn.b"], luns: [{lun: 3}], dedup: false}
      - {initiators: ["*"]}
views:
  - {name: part, cache: {of: under, memory: 1MiB}}
`))
	p := make([]byte, blockdev.BlockLength)
	p[0] = 1
	stored := s.store.LiveBytes()
	for _, tt := range []struct {
		volume string
		blocks int64
	}{{"shared", 1}, {"shared", 0}, {"own", 1}, {"tenant", 1}, {"under", 1}, {"shared", 0}} {
		v, err := s.store.Volume(tt.volume)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.WriteAt(t.Context(), p, blockdev.BlockLength); err != nil {
			t.Fatal(err)
		}
		if err := v.WriteAt(t.Context(), p, 2*blockdev.BlockLength); err != nil {
			t.Fatal(err)
		}
		if err := v.Zero(t.Context(), 2*blockdev.BlockLength, blockdev.BlockLength); err != nil {
			t.Fatal(err)
		}
		now := s.store.LiveBytes()
		if got := (now - stored) / blockdev.BlockLength; got != tt.blocks {
			t.Errorf("a write to %s stores %d blocks more, want %d", tt.volume, got, tt.blocks)
		}
		stored = now
	}
}
