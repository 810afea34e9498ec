package backstore

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/meta/format2"
	"odx/internal/kit/must"
	"odx/internal/kit/oldstores"
	"odx/internal/kit/sample"
)

// memRows are the rows of a store of format 2.
type memRows []meta.Op

func (r memRows) Scan(_ []byte, fn func(key, value []byte) error) error {
	for _, op := range r {
		if err := fn(op.Key, op.Value); err != nil {
			return err
		}
	}
	return nil
}

func (memRows) Close() error { return nil }

const oldMetadata = "/store/" + layout.MetadataDirV2

// loadFormat2 puts a store of format 2 onto a disk in memory, its metadata aside.
func loadFormat2(t *testing.T, store *oldstores.Store) (*disk, memRows) {
	t.Helper()
	dir := filepath.Join(store.Unpack(t), "data")
	db, err := format2.Open(dir, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var rows memRows
	err = db.Scan(nil, func(key, value []byte) error {
		rows = append(rows, meta.Op{Key: append([]byte{}, key...), Value: append([]byte{}, value...)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk()
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || filepath.Dir(rel) == layout.MetadataDirV2 {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Join("/store", rel)
		if err := d.fs.MkdirAll(filepath.Dir(name)); err != nil {
			return err
		}
		put(t, d.fs, name, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Its content is in rows.
	if err := d.fs.MkdirAll(oldMetadata); err != nil {
		t.Fatal(err)
	}
	put(t, d.fs, filepath.Join(oldMetadata, "MANIFEST"), nil)
	return d, rows
}

func (d *disk) upgradeOptions(rows memRows) Options {
	o := d.options(Options{CacheBytes: 4 << 20})
	o.tuning.openOld = func(string, *logrus.Entry) (oldRows, error) { return rows, nil }
	return o
}

// contents reads all of a store, which has to be sound.
func contents(t *testing.T, s *Store) map[string]string {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
	all := make(map[string]string)
	for _, v := range s.catalog.all() {
		b := make([]byte, v.Size())
		if err := v.ReadAt(context.Background(), b, 0); err != nil {
			t.Error(err)
		}
		all[v.String()] = string(b)
	}
	err := s.ScanRecords(nil, func(key, value []byte) error {
		all["record "+string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

func same(a, b map[string]string) bool {
	for key := range a {
		if a[key] != b[key] {
			return false
		}
	}
	return len(a) == len(b)
}

// TestUpgrade_PowerCut: with the power gone before any change of the disk, the
// store has the old format, as it was, or the new one, and all that was in it.
func TestUpgrade_PowerCut(t *testing.T) {
	for _, store := range oldstores.Stores(t) {
		t.Run(store.Name, func(t *testing.T) {
			t.Parallel()
			d, rows := loadFormat2(t, &store)
			s, err := Open(context.Background(), readOnly(d.upgradeOptions(rows)))
			if err != nil {
				t.Fatal(err)
			}
			want := contents(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			limit := sample.Size(10, 10, 32)
			stop := d.cutSometimes(rng, 1+100/limit, limit, anything{})
			_, err = Upgrade(context.Background(), d.upgradeOptions(rows))
			cuts := stop()
			if err != nil {
				t.Fatal(err)
			}
			before := 0
			for i, c := range append(cuts, powerCut{disk: d}) {
				o := c.disk.upgradeOptions(rows)
				s, err := Open(context.Background(), o)
				if old := (*layout.FormatError)(nil); errors.As(err, &old) {
					before++
					if _, err := Upgrade(context.Background(), o); err != nil {
						t.Fatalf("power cut %d of %d: upgrade again: %v", i, len(cuts), err)
					}
					s, err = Open(context.Background(), o)
				}
				if err != nil {
					t.Fatalf("power cut %d of %d: %v", i, len(cuts), err)
				}
				if !same(contents(t, s), want) {
					t.Errorf("power cut %d of %d: the store has changed", i, len(cuts))
				}
				if s.parts.sb.OldJournal {
					t.Errorf("power cut %d of %d: the journal is still taken for an old one", i, len(cuts))
				}
				if names, _ := c.disk.fs.List(oldMetadata); len(names) > 0 {
					t.Errorf("power cut %d of %d: the old metadata is still there", i, len(cuts))
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if before == 0 || before == len(cuts) {
				t.Errorf("%d of %d power cuts left the old format", before, len(cuts))
			}
		})
	}
}

func readOnly(o Options) Options {
	o.ReadOnly = true
	return o
}

// TestUpgrade_Damage: a store that contradicts itself, or of which a part is
// missing, keeps its format, and each of its files.
func TestUpgrade_Damage(t *testing.T) {
	store := oldstores.Stores(t)[2]
	for name, damage := range map[string]func(t *testing.T, d *disk, rows memRows) memRows{
		"rows that are gone": func(t *testing.T, _ *disk, rows memRows) memRows { return rows[:len(rows)/2] },
		"a count that is gone": func(t *testing.T, _ *disk, rows memRows) memRows {
			for i, op := range rows {
				if op.Key[0] == 'x' || op.Key[0] == 'n' {
					return append(rows[:i:i], rows[i+1:]...)
				}
			}
			t.Fatal("no such row")
			return nil
		},
		"no journal": func(t *testing.T, d *disk, rows memRows) memRows {
			for name := range files(t, d.fs, "/store") {
				if filepath.Dir(name) == "/store/journal" {
					if err := d.fs.Remove(name); err != nil {
						t.Fatal(err)
					}
				}
			}
			return rows
		},
		"a damaged record of the journal": func(t *testing.T, d *disk, rows memRows) memRows {
			damageRecord(t, d)
			return rows
		},
		"a missing segment": func(t *testing.T, d *disk, rows memRows) memRows {
			if err := d.fs.Remove("/store/segments/00000004.seg"); err != nil {
				t.Fatal(err)
			}
			return rows
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, rows := loadFormat2(t, &store)
			rows = damage(t, d, rows)
			before := files(t, d.fs, "/store")
			_, err := Upgrade(context.Background(), d.upgradeOptions(rows))
			if name == "no journal" {
				// Nothing distinguishes it from a store that was closed.
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, meta.ErrDamaged) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
			after := files(t, d.fs, "/store")
			for name := range before {
				if string(after[name]) != string(before[name]) {
					t.Errorf("%s was changed", name)
				}
			}
			if _, err := Open(context.Background(), d.upgradeOptions(rows)); !errors.As(err, new(*layout.FormatError)) {
				t.Errorf("opened again: %v, want a FormatError", err)
			}
			if name == "a damaged record of the journal" {
				wantDamaged(t, d.upgradeOptions(rows))
			}
			// What can be read of it becomes a store of this format all the same.
			o := d.upgradeOptions(rows)
			r, err := Repair(context.Background(), RepairOptions{Options: o, To: "/new"})
			if name == "rows that are gone" {
				return // the state of the checkpoint is the first of those
			}
			if err != nil || r.Volumes == 0 {
				t.Fatalf("repair: %+v, %v", r, err)
			}
			o.Dir = "/new"
			s, err := Open(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
				t.Error(findings, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// damageRecord changes a byte of a record in the last file of the journal, in front of
// other records.
func damageRecord(t *testing.T, d *disk) {
	t.Helper()
	last := ""
	all := files(t, d.fs, "/store")
	for name := range all {
		if filepath.Dir(name) == "/store/journal" && !strings.Contains(name, "spare") {
			last = max(last, name)
		}
	}
	const header, first = 4096, 16 // bytes: of the file, and of a record
	f, err := d.fs.Open(last)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{all[last][header+first] ^ 1}, header+first)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// wantDamaged checks that a check of the store finds something.
func wantDamaged(t *testing.T, o Options) {
	t.Helper()
	s, err := Open(context.Background(), readOnly(o))
	if err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(context.Background()); err != nil || len(findings) == 0 {
		t.Errorf("check: %v, %v", findings, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUpgrade_SegmentsMayOnlyBeRead: the proof needs no segment that may be written.
func TestUpgrade_SegmentsMayOnlyBeRead(t *testing.T) {
	for _, store := range oldstores.Stores(t) {
		t.Run(store.Name, func(t *testing.T) {
			t.Parallel()
			d, rows := loadFormat2(t, &store)
			s, err := Open(t.Context(), readOnly(d.upgradeOptions(rows)))
			must.Succeed(t, err)
			want := contents(t, s)
			must.Succeed(t, s.Close())
			o := d.upgradeOptions(rows)
			o.FS = denied{FS: d.fs, open: noAccess(".seg"), toRead: true}
			_, err = Upgrade(t.Context(), o)
			must.Succeed(t, err)
			s, err = Open(t.Context(), o)
			must.Succeed(t, err)
			if !same(contents(t, s), want) {
				t.Error("the store has changed")
			}
			must.Succeed(t, s.Close())
		})
	}
}
