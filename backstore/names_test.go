package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/backstore/layout"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// junkNames are names that files of a store could have, most of them far from those that
// there are.
func junkNames() (names []string) {
	for dir, list := range map[string][]string{
		layout.CheckpointDir: {
			"0000000000000001-ffffffffffffffff.rows", "0000000000000001-ffffffffffffffff.rows.copy", "0000000000000002-ffffffffffffffff.rows",
			"0000000000000005-0000000000000005.rows", "0000000000000006-0000000000000006.rows", "ffffffffffffffff-ffffffffffffffff.rows",
			"0000000000000005-ffffffffffffffff.rows.new", "1-2.rows", "000000000000000G-000000000000000g.rows",
		},
		layout.JournalDir: {
			"ffffffffffffffff.journal", "fffffffffffffffe.journal", "0000000000000000.journal", "00000000000000ff.journal", "spare0.journal", "spare.journal", "1.journal",
		},
		layout.SegmentDir: {
			"ffffffff.seg", "fffffefe.seg", "fffffeff.seg", "ffffff00.seg", "00000100.seg", "00000000.seg", "1.seg",
			"ffffffff.spare", "fffffefe.spare", "fffffeff.spare", "00000100.spare", "00000000.spare",
		},
		layout.ReserveDir: {"ffffffffffffffff.reserve", "fffffffffffffffe.reserve", "1.reserve", "0000000000000000.reserve", "new"},
		layout.RepairDir:  {"x"},
		".":               {"creating", "unfinished-repair", "before-repair/x"},
	} {
		for _, name := range list {
			names = append(names, filepath.Join("/store", dir, name))
		}
	}
	slices.Sort(names)
	return names
}

// TestOpen_NameIsNoProof: a file that has the name of a file of the store, and nothing of
// it, costs nothing: not when it is opened for writing, not in a rescue, not in a repair,
// not later.
func TestOpen_NameIsNoProof(t *testing.T) {
	m := makeDamageable(t)
	delete(m.files, "/store/"+layout.LockName)
	var run []byte
	for name, data := range m.files {
		if strings.HasSuffix(name, ".rows") {
			run = data
		}
	}
	contents := map[string][]byte{"empty": {}, "random": randomBytes(1, 40000), "a run": run}
	for i, name := range junkNames() {
		for what, data := range contents {
			if (i+len(what))%sample.Size(16, 4, 1) > 0 {
				continue
			}
			t.Run(strings.TrimPrefix(name, "/store/")+" "+what, func(t *testing.T) {
				files := maps.Clone(m.files)
				files[name] = data
				m.costsNothing(t, files)
				if v := m.try(t, name, files, name); v != nothing {
					t.Errorf("it is %s", v)
				}
			})
		}
	}
}

// costsNothing opens a store read-only, and repairs it.
func (m *damageable) costsNothing(t *testing.T, files map[string][]byte) {
	t.Helper()
	d := m.on(t, files)
	o := m.options(d)
	o.ReadOnly = true
	s, err := Open(t.Context(), o)
	must.Succeed(t, err)
	if f := m.look(s); f.wrong != "" || f.errors > 0 {
		t.Errorf("read only: %+v", f)
	}
	must.Succeed(t, s.Close())
	for _, to := range []string{"/new", ""} {
		d := m.on(t, files)
		r, err := Repair(t.Context(), RepairOptions{Options: m.options(d), To: to})
		must.Succeed(t, err)
		if r.LostBytes > 0 || len(r.Unused) > 0 {
			t.Errorf("repaired to %q: %+v", to, r)
		}
		o := m.options(d)
		if to != "" {
			o.Dir = to
		}
		s, err := Open(t.Context(), o)
		must.Succeed(t, err)
		if f := m.look(s); f.wrong != "" || f.errors > 0 {
			t.Errorf("repaired to %q: %+v", to, f)
		}
		// There are numbers for files.
		must.Succeed(t, m.work(s), s.Close())
	}
}

// TestOpen_NewestRunDamaged: damage to the newest metadata is an error, which changes
// nothing, unless the journal was not trimmed and no segment was removed since: what the
// store was right before is all there.
func TestOpen_NewestRunDamaged(t *testing.T) {
	ctx := context.Background()
	m := makeDamageable(t)
	d := m.on(t, m.files)
	s, err := Open(ctx, m.options(d))
	must.Succeed(t, err)
	must.Succeed(t, s.Checkpoint(ctx), s.PutRecords(ctx, Record{Key: []byte("later"), Value: []byte("x")}), s.Close())
	later := files(t, d.fs, "/store")
	newest := ""
	for name := range later {
		if strings.HasSuffix(name, ".rows") && m.files[name] == nil {
			newest = max(newest, name)
		}
	}
	seg := ""
	for name := range m.files {
		if strings.HasSuffix(name, ".seg") {
			seg = max(seg, name)
		}
	}
	trimmed := maps.Clone(later)
	last := ""
	for name := range later {
		if strings.HasPrefix(filepath.Base(name), "00") && strings.HasSuffix(name, ".journal") {
			last = max(last, name)
		}
	}
	maps.DeleteFunc(trimmed, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".journal") && name != last })
	damage := func(files map[string][]byte) map[string][]byte {
		files = maps.Clone(files)
		delete(files, "/store/"+layout.LockName)
		files[newest], files[newest+".copy"] = bytes.Repeat([]byte("x"), 1<<16), nil
		return files
	}
	for name, tt := range map[string]struct {
		files func() map[string][]byte
		opens bool
	}{
		"stored, journal not truncated yet":      {func() map[string][]byte { return damage(m.files) }, true},
		"truncated, files of the journal remain": {func() map[string][]byte { return damage(later) }, true},
		"truncated":                              {func() map[string][]byte { return damage(trimmed) }, false},
		"segment removed": {func() map[string][]byte {
			files := damage(m.files)
			delete(files, seg)
			return files
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			files := tt.files()
			d := m.on(t, files)
			s, err := Open(ctx, m.options(d))
			if !tt.opens {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), newest) {
					t.Errorf("%v, want ErrCorrupt that names %s", err, newest)
				}
				if after := filesOf(t, d.fs); !maps.EqualFunc(files, after, bytes.Equal) {
					t.Error("the refusal has changed files")
				}
				return
			}
			must.Succeed(t, err)
			defer s.Close()
			if f := m.look(s); f.wrong != "" || f.errors > 0 {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestRepair_NameIsNoProof: a file by the name of the mark of a complete repair replaces
// nothing.
func TestRepair_NameIsNoProof(t *testing.T) {
	m := makeDamageable(t)
	files := maps.Clone(m.files)
	files[filepath.Join("/store", layout.RepairDir, layout.RepairedTag)] = []byte("x")
	files[filepath.Join("/store", layout.RepairDir, layout.CheckpointDir, "x")] = []byte("x")
	d := m.on(t, files)
	if _, err := Repair(t.Context(), RepairOptions{Options: m.options(d)}); err == nil {
		t.Error("it was put in its place")
	}
	for name, data := range m.files {
		if after := filesOf(t, d.fs)[name]; name != "/store/"+layout.LockName && !bytes.Equal(after, data) {
			t.Errorf("%s was changed", name)
		}
	}
}
