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
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// sampleDB is a small DB of several runs, some of several tables.
type sampleDB struct {
	files map[string][]byte
	want  map[string]string
}

const sampleDir = "/m"

func makeSample(t *testing.T, copies int) sampleDB {
	t.Helper()
	fsys := vfs.NewMem()
	db := openDB(t, fsys, sampleDir, func(o *Options) { o.Copies = copies })
	rng := rand.New(rand.NewPCG(7, 8))
	want := map[string]string{}
	for range 4 {
		must.Succeed(t, storeOps(db, randomOps(rng, want)))
	}
	must.Succeed(t, db.Close())
	return sampleDB{files: filesOf(t, fsys), want: want}
}

func filesOf(t *testing.T, fsys vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fsys.List(sampleDir)
	must.Succeed(t, err)
	files := make(map[string][]byte)
	for _, name := range names {
		f, err := fsys.Open(filepath.Join(sampleDir, name))
		must.Succeed(t, err)
		size, err := f.Size()
		must.Succeed(t, err)
		b := make([]byte, size)
		_, err = f.ReadAt(b, 0)
		must.Succeed(t, err)
		must.Succeed(t, f.Close())
		files[name] = b
	}
	return files
}

func withFiles(t *testing.T, files map[string][]byte) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem()
	must.Succeed(t, fsys.MkdirAll(sampleDir))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := fsys.Create(filepath.Join(sampleDir, name))
		must.Succeed(t, err)
		_, err = f.WriteAt(files[name], 0)
		must.Succeed(t, err)
		must.Succeed(t, f.Close())
	}
	return fsys
}

// damages calls each with every kind of damage to a file, in turn; a sample under -short.
func (s sampleDB) damages(name string, each func(what string, data []byte)) {
	data, n := s.files[name], 0
	fn := func(what string, data []byte) {
		if n++; n%sample.Size(5, 1, 1) == 0 {
			each(what, data)
		}
	}
	for at := 0; at < len(data); at += blockLength {
		flipped := bytes.Clone(data)
		bit := (at + at/blockLength*37) % (8 * min(blockLength, len(data)-at))
		flipped[at+bit/8] ^= 1 << (bit % 8)
		fn(fmt.Sprintf("bit %d of block %d", bit, at/blockLength), flipped)
	}
	fn("truncated", bytes.Clone(data[:len(data)/2]))
	fn("a byte short", bytes.Clone(data[:len(data)-1]))
	fn("emptied", []byte{})
	fn("longer", append(bytes.Clone(data), make([]byte, 5000)...))
	fn("zeros", make([]byte, len(data)))
	fn("deleted", nil)
	for _, other := range slices.Sorted(maps.Keys(s.files)) {
		if strings.TrimSuffix(other, copySuffix) != strings.TrimSuffix(name, copySuffix) {
			fn("swapped with "+other, bytes.Clone(s.files[other]))
		}
	}
}

// damaged returns the sample's files with one or several replaced.
func (s sampleDB) damaged(data []byte, names ...string) map[string][]byte {
	files := maps.Clone(s.files)
	for _, name := range names {
		if data == nil {
			delete(files, name)
		} else {
			files[name] = data
		}
	}
	return files
}

// TestDB_OneCopyDamaged damages each file of a DB in every way: everything reads
// right, and is mended byte for byte.
func TestDB_OneCopyDamaged(t *testing.T) {
	s := makeSample(t, 2)
	n := 0
	for name := range s.files {
		s.damages(name, func(what string, data []byte) {
			n++
			fsys := withFiles(t, s.damaged(data, name))
			db := openDB(t, fsys, sampleDir)
			if err := sameRows(db, s.want); err != nil {
				t.Fatalf("%s %s: %v", name, what, err)
			}
			must.Succeed(t, db.Scrub(context.Background(), func(context.Context, int) error { return nil }))
			must.Succeed(t, db.Close())
			for other, want := range s.files {
				if got := filesOf(t, fsys)[other]; !bytes.Equal(got, want) {
					t.Fatalf("%s %s: %s was not mended: %d bytes, want %d", name, what, other, len(got), len(want))
				}
			}
		})
	}
	t.Logf("%d damages", n)
}

// TestDB_ReadOnlyDamage reads around damage and changes nothing.
func TestDB_ReadOnlyDamage(t *testing.T) {
	s := makeSample(t, 2)
	for name := range s.files {
		s.damages(name, func(what string, data []byte) {
			files := s.damaged(data, name)
			fsys := withFiles(t, files)
			fsys.SetHook(func(kind vfs.OpKind, name string) error {
				if kind.Changes() {
					t.Errorf("operation %d on %s of a DB that is read only", kind, name)
				}
				return nil
			})
			db, err := Open(Options{FS: fsys, Dir: sampleDir, StoreID: testStore, ReadOnly: true})
			must.Succeed(t, err)
			if err := sameRows(db, s.want); err != nil {
				t.Fatalf("%s %s: %v", name, what, err)
			}
			must.Succeed(t, db.Tidy(context.Background()))
			must.Succeed(t, db.Scrub(context.Background(), func(context.Context, int) error { return nil }))
			must.Succeed(t, db.Close())
		})
	}
}

// TestDB_BothCopiesDamaged damages one thing in all copies: what is lost is
// reported, nothing is wrong or missing without an error, and the rest reads
// right.
func TestDB_BothCopiesDamaged(t *testing.T) {
	for copies := 1; copies <= 2; copies++ {
		s := makeSample(t, copies)
		lost, refused, unharmed := 0, 0, 0
		for name := range s.files {
			if strings.HasSuffix(name, copySuffix) {
				continue
			}
			names := []string{name, name + copySuffix}[:copies]
			s.damages(name, func(what string, data []byte) {
				switch n := readsDamaged(t, s, name+" "+what, s.damaged(data, names...)); {
				case n < 0:
					refused++
				case n > 0:
					lost++
				default:
					unharmed++
				}
			})
		}
		t.Logf("%d copies: %d damages lost rows, %d were refused, %d cost nothing", copies, lost, refused, unharmed)
		if lost == 0 || refused == 0 || unharmed == 0 {
			t.Error("a case never came")
		}
	}
}

// readsDamaged returns how many rows are lost, -1 when the DB does not open.
func readsDamaged(t *testing.T, s sampleDB, what string, files map[string][]byte) int {
	t.Helper()
	db, err := Open(Options{FS: withFiles(t, files), Dir: sampleDir, StoreID: testStore})
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", what, err)
		}
		return -1
	}
	defer db.Close()
	db.Settle()
	lost := map[string]bool{}
	for key, want := range s.want {
		got, err := db.Get([]byte(key))
		if errors.Is(err, ErrDamaged) {
			lost[key] = true
		} else if err != nil || string(got) != want {
			// The newest run can be gone without a trace here: the journal, which
			// begins after it, shows it.
			if db.Last() < 4 {
				return -1
			}
			t.Fatalf("%s: row %q: %d bytes, %v", what, key, len(got), err)
		}
	}
	found, err := rowsOf(db, "")
	if (len(lost) > 0) != errors.Is(err, ErrDamaged) {
		t.Fatalf("%s: %d rows are lost, and a scan says %v", what, len(lost), err)
	}
	for key, want := range s.want {
		if got, ok := found[key]; ok == lost[key] || ok && got != want {
			t.Fatalf("%s: a scan finds row %q: %t, lost %t", what, key, ok, lost[key])
		}
	}
	err = db.Scrub(context.Background(), func(context.Context, int) error { return nil })
	if len(lost) > 0 && !errors.Is(err, ErrDamaged) {
		t.Fatalf("%s: %d rows are lost, and a scrub says %v", what, len(lost), err)
	}
	must.Succeed(t, db.Tidy(context.Background()))
	if again, _ := rowsOf(db, ""); !maps.Equal(again, found) {
		t.Fatalf("%s: after tidying %d rows, before it %d", what, len(again), len(found))
	}
	return len(lost)
}

// TestDB_MissingRun leaves out runs: a gap is named.
func TestDB_MissingRun(t *testing.T) {
	s := makeSample(t, 2)
	for n := uint64(1); n < 4; n++ {
		name := runID{n, n}.fileName()
		fsys := withFiles(t, s.damaged(nil, name, name+copySuffix))
		_, err := Open(Options{FS: fsys, Dir: sampleDir, StoreID: testStore})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		if got, want := len(filesOf(t, fsys)), 6; got != want {
			t.Errorf("%d files are left, want %d", got, want)
		}
	}
}

// TestDB_PowerCuts cuts the power before every change of a file, while
// checkpoints are stored and runs are merged.
func TestDB_PowerCuts(t *testing.T) {
	for _, floor := range []int64{1, 200 << 10, DefaultMergeFloor} {
		t.Run(fmt.Sprint(floor), func(t *testing.T) { powerCuts(t, floor) })
	}
}

func powerCuts(t *testing.T, floor int64) {
	merge := func(o *Options) { o.MergeFloor = floor }
	fsys := vfs.NewMem()
	cutRand := newRand(9)
	before, after := map[string]string{}, map[string]string{}
	cuts := 0
	cut := func() {
		if cuts++; cuts%sample.Size(6, 1, 1) > 0 {
			return
		}
		clone := fsys.CrashClone(cutRand)
		for range 2 { // recovery is cut once, too
			db := openDB(t, clone, sampleDir, merge)
			if err := sameRows(db, before); err != nil {
				if err2 := sameRows(db, after); err2 != nil {
					t.Fatalf("power cut %d: neither before (%v) nor after (%v)", cuts, err, err2)
				}
			}
			second := clone.CrashClone(cutRand)
			must.Succeed(t, db.Tidy(context.Background()))
			if err := sameRows(db, before); err != nil {
				must.Succeed(t, sameRows(db, after))
			}
			must.Succeed(t, db.Close())
			clone = second
		}
	}
	db := openDB(t, fsys, sampleDir, merge)
	rng := rand.New(rand.NewPCG(11, 12))
	for range 14 {
		after = maps.Clone(before)
		ops := randomOps(rng, after)
		fsys.SetHook(func(kind vfs.OpKind, _ string) error {
			if kind.Changes() && cutRand.IntN(6) == 0 {
				cut()
			}
			return nil
		})
		must.Succeed(t, storeOps(db, ops))
		before = after
		must.Succeed(t, db.Tidy(context.Background()))
		fsys.SetHook(nil)
	}
	must.Succeed(t, sameRows(db, before))
	must.Succeed(t, db.Close())
	t.Logf("%d power cuts", cuts)
}
