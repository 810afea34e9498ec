package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// junk calls fn with files that have the names of runs and are none: some that would be
// the newest, some that would be in the middle, some that would have all rows.
func (s sampleDB) junk(each func(what string, files map[string][]byte)) {
	n := 0
	fn := func(what string, files map[string][]byte) {
		if n++; n%sample.Size(10, 1, 1) == 0 {
			each(what, files)
		}
	}
	random := make([]byte, 20000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	const end = ^uint64(0)
	for _, id := range []runID{
		{1, end}, {1, end - 1}, {1, 5}, {1, 1 << 62}, {2, end}, {3, 5}, {4, 5}, {5, 5}, {5, 6}, {5, end}, {6, 6}, {end, end},
	} {
		for what, data := range map[string][]byte{"empty": {}, "random": random, "another run": s.files[runID{2, 2}.fileName()]} {
			for _, suffixes := range [][]string{{""}, {copySuffix}, {"", copySuffix}} {
				files := maps.Clone(s.files)
				for _, suffix := range suffixes {
					files[id.fileName()+suffix] = data
				}
				fn(fmt.Sprintf("%s%v, %s", id.fileName(), suffixes, what), files)
			}
		}
	}
}

// TestDB_NameOfRun: a file that only has the name of a run costs nothing if the owner of
// the rows proves that no later ones are needed, and is an error otherwise, which changes
// nothing.
func TestDB_NameOfRun(t *testing.T) {
	s := makeSample(t, 2)
	want, err := rowsOf(openDB(t, withFiles(t, s.files), sampleDir), "")
	must.Succeed(t, err)
	s.junk(func(what string, files map[string][]byte) {
		fsys := withFiles(t, files)
		o := Options{FS: fsys, Dir: sampleDir, StoreID: testStore}
		_, err := Open(o)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), sampleDir) {
			t.Fatalf("%s: %v, want ErrDamaged", what, err)
		}
		if after := filesOf(t, fsys); !maps.EqualFunc(files, after, bytes.Equal) {
			t.Fatalf("%s: a refusal has changed files", what)
		}
		for _, o.ReadOnly = range []bool{true, false} {
			for i, proof := range []func(Reader) (bool, error){nil, unneeded(false), unneeded(true)} {
				needed := i < 2
				o.Unneeded = proof
				db, err := Open(o)
				if needed && !o.ReadOnly {
					if !errors.Is(err, ErrDamaged) {
						t.Fatalf("%s: %v, want ErrDamaged", what, err)
					}
					continue
				}
				must.Succeed(t, err)
				got, err := rowsOf(db, "")
				if needed {
					if !errors.Is(err, ErrDamaged) || len(got) > 0 || db.Lost() == nil || db.Unneeded() != nil {
						t.Fatalf("%s: %d rows, %v, lost %v", what, len(got), err, db.Lost())
					}
				} else if err != nil || !maps.Equal(got, want) || db.Lost() != nil || db.Unneeded() == nil {
					t.Fatalf("%s: %d rows, %v, lost %v, not needed %v", what, len(got), err, db.Lost(), db.Unneeded())
				}
				must.Succeed(t, db.Close())
			}
		}
		goesOn(t, what, fsys, want)
	})
}

func unneeded(is bool) func(Reader) (bool, error) {
	return func(Reader) (bool, error) { return is, nil }
}

// goesOn stores checkpoints next to files that are not needed, and opens the rows again.
func goesOn(t *testing.T, what string, fsys *vfs.Mem, rows map[string]string) {
	t.Helper()
	want := maps.Clone(rows)
	for round := range 3 {
		db := openDB(t, fsys, sampleDir, func(o *Options) { o.Unneeded = unneeded(round == 0) })
		for i := range 2 {
			key := fmt.Sprint("key ", round, i)
			want[key] = "value"
			changes(t, db, op(key, "value"))
		}
		must.Succeed(t, db.Tidy(context.Background()))
		if err := sameRows(db, want); err != nil {
			t.Fatalf("%s: round %d: %v", what, round, err)
		}
		must.Succeed(t, db.Close())
	}
}

// TestDB_NameOfPart: a merged run of which one copy and a table are damaged is read, though
// a file has the name of a part of it.
func TestDB_NameOfPart(t *testing.T) {
	s := makeSample(t, 1)
	db := openDB(t, withFiles(t, s.files), sampleDir, func(o *Options) { o.Copies = 1 })
	must.Succeed(t, db.merge(context.Background(), slices.Clone(db.current.runs)))
	must.Succeed(t, db.Close())
	files := filesOf(t, db.o.FS)
	merged := runID{1, 4}.fileName()
	files[merged][blockLength+10] ^= 1 // in its first table
	files[runID{2, 2}.fileName()] = []byte("no run")
	again := openDB(t, withFiles(t, files), sampleDir)
	defer again.Close()
	listed := 0
	must.Succeed(t, again.Keys(nil, func([]byte) error { listed++; return nil }))
	if listed != len(s.want) || again.Lost() != nil {
		t.Errorf("%d of %d rows are listed, lost: %v", listed, len(s.want), again.Lost())
	}
}

// TestDB_ForeignRunStays: a file of another store is not removed.
func TestDB_ForeignRunStays(t *testing.T) {
	s := makeSample(t, 2)
	name := runID{5, 5}.fileName()
	other := vfs.NewMem()
	must.Succeed(t, other.MkdirAll(sampleDir))
	db, err := Open(Options{FS: other, Dir: sampleDir, StoreID: [16]byte{9}})
	must.Succeed(t, err)
	changes(t, db, op("key", "value"))
	must.Succeed(t, db.Close())
	s.files[name] = filesOf(t, other)[runID{1, 1}.fileName()]
	fsys := withFiles(t, s.files)
	db = openDB(t, fsys, sampleDir, func(o *Options) { o.Unneeded = unneeded(true) })
	must.Succeed(t, db.Tidy(context.Background()))
	must.Succeed(t, db.Close())
	if !bytes.Equal(filesOf(t, fsys)[name], s.files[name]) {
		t.Error("it was removed or changed")
	}
}

// TestDB_OpenChangesNothing: what Open finds damaged is repaired by Settle.
func TestDB_OpenChangesNothing(t *testing.T) {
	s := makeSample(t, 2)
	for name := range s.files {
		s.damages(name, func(what string, data []byte) {
			files := s.damaged(data, name)
			fsys := withFiles(t, files)
			db, err := Open(Options{FS: fsys, Dir: sampleDir, StoreID: testStore})
			must.Succeed(t, err)
			if err := sameRows(db, s.want); err != nil {
				t.Fatalf("%s %s: %v", name, what, err)
			}
			if after := filesOf(t, fsys); !maps.EqualFunc(files, after, bytes.Equal) {
				t.Fatalf("%s %s: Open has changed files", name, what)
			}
			db.Settle()
			// Of two copies the first is read.
			if strings.HasPrefix(what, "bit") && !strings.HasSuffix(name, copySuffix) && !bytes.Equal(filesOf(t, fsys)[name], s.files[name]) {
				t.Fatalf("%s %s: it is not repaired", name, what)
			}
			must.Succeed(t, db.Close())
		})
	}
}

// TestDB_UnremovableName: while something that cannot be removed has the name of a run,
// tidying reads the rows once.
func TestDB_UnremovableName(t *testing.T) {
	s := makeSample(t, 2)
	fsys := withFiles(t, s.files)
	name := filepath.Join(sampleDir, runID{1, 1 << 63}.fileName())
	must.Succeed(t, fsys.MkdirAll(name))
	f, err := fsys.Create(filepath.Join(name, "file"))
	must.Succeed(t, err, f.Close())
	db := openDB(t, fsys, sampleDir, func(o *Options) { o.Unneeded = unneeded(true) })
	read := 0
	fsys.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpRead {
			read++
		}
		return nil
	})
	must.Succeed(t, db.Tidy(t.Context()))
	if read == 0 {
		t.Error("nothing was verified")
	}
	read = 0
	must.Succeed(t, db.Tidy(t.Context()))
	if read > 0 {
		t.Errorf("%d reads", read)
	}
	must.Succeed(t, db.Close())
}

// TestDB_NewestRunUndecided: the newest run is refused though the owner of the rows needs
// none of it, if this process cannot open it, or does not know its format.
func TestDB_NewestRunUndecided(t *testing.T) {
	s := makeSample(t, 2)
	newest := runID{4, 4}.fileName()
	for name, tt := range map[string]struct {
		change func(files map[string][]byte)
		open   error
	}{
		"a later format": {change: func(files map[string][]byte) {
			b := bytes.Clone(files[newest])
			for _, at := range []int{len(b) - 2*blockLength, len(b) - blockLength} {
				copy(b[at:], withVersion(b[at:], runVersion+1))
			}
			files[newest], files[newest+copySuffix] = b, b
		}},
		"no permission":  {open: syscall.EACCES},
		"too many files": {open: syscall.EMFILE},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(s.files)
			if tt.change != nil {
				tt.change(files)
			}
			fsys := withFiles(t, files)
			_, err := Open(Options{FS: unopenable{fsys, newest, tt.open}, Dir: sampleDir, StoreID: testStore, Unneeded: unneeded(true)})
			if !errors.Is(err, ErrDamaged) || tt.open != nil && !errors.Is(err, tt.open) {
				t.Errorf("%v, want an error", err)
			}
			if after := filesOf(t, fsys); !maps.EqualFunc(files, after, bytes.Equal) {
				t.Error("files have changed")
			}
		})
	}
}

// unopenable fails to open the copies of a run.
type unopenable struct {
	vfs.FS
	name string
	err  error
}

func (f unopenable) Open(name string) (vfs.File, error) {
	if f.err != nil && strings.HasPrefix(filepath.Base(name), f.name) {
		return nil, f.err
	}
	return f.FS.Open(name)
}
