package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"odx/backstore/layout"
	"odx/internal/kit/sample"
)

// TestSuperblock_Lost loses both copies of the superblock, of stores of each dedup unit:
// the store is not opened, and not changed; a rescue shows all of its data, and a repair
// makes it whole, with deduplication.
func TestSuperblock_Lost(t *testing.T) {
	ctx := context.Background()
	for unit := BlockLength; unit <= 64<<10; unit *= sample.Size(16, 2, 2) {
		for _, damage := range []string{"deleted", "flipped"} {
			t.Run(fmt.Sprintf("%d bytes, %s", unit, damage), func(t *testing.T) {
				d := newDisk()
				o := Options{DedupUnit: unit, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
				want := runsOn(t, d, o)
				all := filesOf(t, d.fs)
				for _, in := range layout.Superblocks("/store") {
					name := filepath.Join(in, layout.SuperblockName)
					bad := bytes.Clone(all[name])
					bad[20] ^= 1 // of the id
					if damage == "deleted" {
						bad = nil
					}
					set(all, name, bad)
				}
				o.DedupUnit = 0
				d = (&damageable{}).on(t, all)
				if _, err := Open(ctx, d.options(o)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/store/store") || !strings.Contains(err.Error(), "odx store repair") {
					t.Errorf("opening it: %v, want ErrCorrupt that names the file and what to do", err)
				}
				rescued, err := Open(ctx, readOnly(d.options(o)))
				if err != nil {
					t.Fatal(err)
				}
				if got, lost := readable(t, rescued); !maps.Equal(got, want) || len(lost) > 0 || rescued.DedupUnit() != unit {
					t.Errorf("a rescue has other data than the store, lost %v, dedup unit %d", lost, rescued.DedupUnit())
				}
				if list, _ := rescued.Damage(); len(list) != 1 || list[0].What != "superblock" {
					t.Errorf("damage: %+v", list)
				}
				if err := rescued.Close(); err != nil {
					t.Error(err)
				}
				if after := filesOf(t, d.fs); !maps.EqualFunc(all, after, bytes.Equal) {
					t.Error("the damaged store has changed")
				}
				for _, to := range []string{"/new", ""} {
					r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: to})
					if err != nil {
						t.Fatal(err)
					}
					dir := "/new"
					if to == "" {
						dir = "/store"
					}
					s := d.openAt(t, dir)
					wantRepaired(t, s, want, r)
					if r.LostBytes > 0 || len(r.Lost) != 1 || r.Lost[0].What != "superblock" {
						t.Errorf("%d bytes are lost, %+v", r.LostBytes, r.Lost)
					}
					wantDeduplicated(t, s)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// wantDeduplicated writes what volume old of runsOn holds once more: it is not stored
// again.
func wantDeduplicated(t *testing.T, s *Store) {
	t.Helper()
	ctx := context.Background()
	<-s.writer.indexLoaded
	before, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v := createVolume(t, s, "again", 1<<20)
	if err := v.WriteAt(ctx, randomBytes(3, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	after, err := s.Stats(ctx)
	if err != nil || after.LiveBytes > before.LiveBytes {
		t.Errorf("%d bytes were stored again, %v", after.LiveBytes-before.LiveBytes, err)
	}
}

// TestSuperblock_LostUnknown: where the other files do not agree, nothing is shown.
func TestSuperblock_LostUnknown(t *testing.T) {
	m := makeDamageable(t)
	other := makeDamageable(t)
	delete(m.files, "/store/"+layout.LockName)
	for _, in := range layout.Superblocks("/store") {
		delete(m.files, filepath.Join(in, layout.SuperblockName))
	}
	for name, content := range other.files {
		if strings.Contains(name, layout.SegmentDir) {
			m.files[name] = content
		}
	}
	d := m.on(t, m.files)
	for what, open := range map[string]func() error{
		"rescue": func() error { _, err := Open(context.Background(), readOnly(m.options(d))); return err },
		"repair": func() error {
			_, err := Repair(context.Background(), RepairOptions{Options: m.options(d)})
			return err
		},
	} {
		if err := open(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "do not agree") {
			t.Errorf("%s: %v, want ErrCorrupt that says why", what, err)
		}
	}
	if after := filesOf(t, d.fs); !maps.EqualFunc(m.files, after, bytes.Equal) {
		t.Error("the refusal has changed files")
	}
}
