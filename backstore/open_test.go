package backstore

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/backstore/layout"
)

// TestOpen_Remains: no store is made next to something of another one.
func TestOpen_Remains(t *testing.T) {
	for _, name := range []string{
		"segments/00000001.seg", "journal/0000000000000001.journal", "checkpoints/0000000000000001-0000000000000001.rows",
		"metadata/MANIFEST", "checkpoint", "reserve/0000000000000001.reserve", "repairing/repaired", "before-repair/x",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			path := filepath.Join("/store", name)
			if err := d.fs.MkdirAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
			put(t, d.fs, path, nil)
			before := files(t, d.fs, "/store")
			for range 2 {
				s, err := Open(context.Background(), d.options(Options{}))
				if err == nil {
					s.Close()
				}
				if !errors.Is(err, ErrCorrupt) {
					t.Errorf("%v, want ErrCorrupt", err)
				}
			}
			after := files(t, d.fs, "/store")
			delete(after, filepath.Join("/store", layout.LockName))
			if !maps.EqualFunc(before, after, bytes.Equal) {
				t.Errorf("the refusal has changed files: %v", slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

// TestOpen_CreatingNextToData: what says that a store is being made does not make
// one with data an unfinished one.
func TestOpen_CreatingNextToData(t *testing.T) {
	m := makeDamageable(t)
	for _, dir := range layout.Superblocks("/store") {
		delete(m.files, filepath.Join(dir, layout.SuperblockName))
	}
	m.files[filepath.Join("/store", layout.CreatingName)] = nil
	d := m.on(t, m.files)
	before := files(t, d.fs, "/store")
	_, err := Open(context.Background(), m.options(d))
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	after := files(t, d.fs, "/store")
	delete(after, filepath.Join("/store", layout.LockName))
	if delete(before, filepath.Join("/store", layout.LockName)); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("the refusal has changed files")
	}
}

// TestOpen_SuperblockCannotBeMended: the other copy is enough.
func TestOpen_SuperblockCannotBeMended(t *testing.T) {
	for _, dir := range layout.Superblocks("/store") {
		t.Run(dir, func(t *testing.T) {
			m := makeDamageable(t)
			name := filepath.Join(dir, layout.SuperblockName)
			delete(m.files, name)
			d := m.on(t, m.files)
			// In its place is a directory that is not empty.
			if err := d.fs.MkdirAll(name); err != nil {
				t.Fatal(err)
			}
			put(t, d.fs, filepath.Join(name, "x"), nil)
			s, err := Open(context.Background(), m.options(d))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if found := m.look(s); found.wrong != "" || found.errors > 0 {
				t.Errorf("%+v", found)
			}
			damage, _ := s.Damage()
			if len(damage) != 1 || damage[0].What != name || !strings.Contains(damage[0].Error, "mended") {
				t.Errorf("%+v", damage)
			}
		})
	}
}

// TestOpen_NoCheckpoints: an error names the directory, and what to do.
func TestOpen_NoCheckpoints(t *testing.T) {
	m := makeDamageable(t)
	d := newDisk()
	for name, content := range m.files {
		if filepath.Dir(name) == "/store/"+layout.CheckpointDir {
			continue
		}
		if err := d.fs.MkdirAll(filepath.Dir(name)); err != nil {
			t.Fatal(err)
		}
		put(t, d.fs, name, content)
	}
	_, err := Open(context.Background(), m.options(d))
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/store/checkpoints") || !strings.Contains(err.Error(), "restore") {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}
