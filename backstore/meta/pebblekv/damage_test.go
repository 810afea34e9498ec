package pebblekv

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

	"go.uber.org/goleak"

	"odx/backstore/meta"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, ignored...) }

// ignored is started when glog, a dependency of Badger, is loaded.
var ignored = []goleak.Option{goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon")}

const dir = "/m"

var storeID = [16]byte{1, 2, 3}

// sample is rows in several tables, of several checkpoints.
type sample struct {
	files map[string][]byte
	want  map[string]string
}

func openRows(fsys vfs.FS, unneeded func(meta.Reader) (bool, error)) (*db, error) {
	d, err := open(meta.Options{FS: fsys, Dir: dir, StoreID: storeID, Unneeded: unneeded})
	if err == nil {
		d.Settle()
	}
	return d, err
}

// store stores a checkpoint of the rows that differ, as they are now; "" deletes.
func store(t *testing.T, d *db, changes map[string]string) {
	t.Helper()
	must.Succeed(t, d.Store(0, func(put func(meta.Op) error) error {
		for _, key := range slices.Sorted(maps.Keys(changes)) {
			op := meta.Op{Key: []byte(key)}
			if changes[key] != "" {
				op.Value = []byte(changes[key])
			}
			if err := put(op); err != nil {
				return err
			}
		}
		return nil
	}))
}

func makeSample(t *testing.T) sample {
	t.Helper()
	fsys := vfs.NewMem()
	must.Succeed(t, fsys.MkdirAll(dir))
	d, err := openRows(fsys, nil)
	must.Succeed(t, err)
	rng := rand.New(rand.NewPCG(7, 8))
	want := map[string]string{}
	for i := range 6 {
		changes := map[string]string{}
		for range 30 {
			key, value := fmt.Sprintf("row %03d", rng.IntN(60)), make([]byte, 1+rng.IntN(20))
			for k := range value {
				value[k] = byte(rng.Uint32())
			}
			changes[key], want[key] = string(value), string(value)
		}
		gone := fmt.Sprintf("row %03d", i)
		changes[gone] = ""
		delete(want, gone)
		store(t, d, changes)
		if i == 3 {
			must.Succeed(t, d.Tidy(t.Context()))
		}
	}
	must.Succeed(t, d.Close())
	return sample{filesOf(t, fsys), want}
}

func filesOf(t *testing.T, fsys vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fsys.List(dir)
	must.Succeed(t, err)
	found := make(map[string][]byte)
	for _, name := range names {
		f, err := fsys.Open(filepath.Join(dir, name))
		must.Succeed(t, err)
		size, err := f.Size()
		must.Succeed(t, err)
		b := make([]byte, size)
		if size > 0 {
			_, err = f.ReadAt(b, 0)
			must.Succeed(t, err)
		}
		must.Succeed(t, f.Close())
		found[name] = b
	}
	return found
}

func withFiles(t *testing.T, contents map[string][]byte) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem()
	must.Succeed(t, fsys.MkdirAll(dir))
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		f, err := fsys.Create(filepath.Join(dir, name))
		must.Succeed(t, err)
		_, err = f.WriteAt(contents[name], 0)
		must.Succeed(t, errors.Join(err, f.Close()))
	}
	return fsys
}

// damages calls fn with every kind of damage to a file, in turn.
func (s sample) damages(name string, fn func(what string, data []byte)) {
	data := s.files[name]
	every := max(7, len(data)/40)
	for at := 0; at < len(data); at += every {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1 << (at / every % 8)
		fn(fmt.Sprintf("bit %d of byte %d", at/every%8, at), flipped)
	}
	if len(data) > 0 {
		fn("truncated", bytes.Clone(data[:len(data)/2]))
		fn("a byte short", bytes.Clone(data[:len(data)-1]))
		fn("emptied", []byte{})
		fn("zeros", make([]byte, len(data)))
	}
	fn("longer", append(bytes.Clone(data), make([]byte, 5000)...))
	fn("deleted", nil)
	for _, other := range slices.Sorted(maps.Keys(s.files)) {
		if other != name && filepath.Ext(other) == filepath.Ext(name) {
			fn("swapped with "+other, bytes.Clone(s.files[other]))
		}
	}
}

// truthful says what is wrong with what is read: a row is right, or an error of damage.
func truthful(r meta.KV, want map[string]string) error {
	for i, key := range slices.Sorted(maps.Keys(want)) {
		if i%9 != 0 {
			continue // for a damaged block Pebble tries which bit it could be
		}
		got, err := r.Get([]byte(key))
		if err != nil && !errors.Is(err, meta.ErrDamaged) {
			return fmt.Errorf("row %q: %w", key, err)
		}
		if err == nil && string(got) != want[key] {
			return fmt.Errorf("row %q has another value", key)
		}
	}
	found := map[string]string{}
	err := r.Scan(nil, func(key, value []byte) error {
		found[string(key)] = string(value)
		return nil
	})
	if err != nil && !errors.Is(err, meta.ErrDamaged) {
		return err
	}
	if err == nil && len(found) != len(want) {
		return fmt.Errorf("a scan finds %d rows of %d, without an error", len(found), len(want))
	}
	for key, value := range found {
		if want[key] != value {
			return fmt.Errorf("a scan finds another value of row %q", key)
		}
	}
	return nil
}

// TestDB_Damaged damages each file in every way: what is read is right, or damage is
// reported; nothing is not found that was stored, and no file is changed by opening.
func TestDB_Damaged(t *testing.T) {
	s := makeSample(t)
	n, noticed := 0, 0
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		s.damages(name, func(what string, data []byte) {
			n++
			contents := maps.Clone(s.files)
			if contents[name] = data; data == nil {
				delete(contents, name)
			}
			fsys := withFiles(t, contents)
			d, err := openRows(fsys, nil)
			if err != nil {
				noticed++
				if !errors.Is(err, meta.ErrDamaged) {
					t.Fatalf("%s %s: %v", name, what, err)
				}
			} else {
				if err := truthful(d, s.want); err != nil {
					t.Fatalf("%s %s: %v", name, what, err)
				}
				err := d.Scrub(context.Background(), func(context.Context, int) error { return nil })
				if err != nil && !errors.Is(err, meta.ErrDamaged) {
					t.Fatalf("%s %s: scrub: %v", name, what, err)
				}
				if err != nil {
					noticed++
				}
				if strings.HasSuffix(name, ".sst") && strings.HasPrefix(what, "bit") && err == nil && d.Stats().Damaged == 0 {
					t.Errorf("%s %s is not noticed", name, what)
				}
				must.Succeed(t, d.Close())
			}
			for other, before := range contents {
				if !bytes.Equal(filesOf(t, fsys)[other], before) {
					t.Fatalf("%s %s: opening has changed %s", name, what, other)
				}
			}
		})
	}
	t.Logf("%d damages, %d reported", n, noticed)
}

// TestDB_LostEnd cuts the end of the list of tables off: the checkpoint that is lost with it
// is noticed, and is no damage only where the journal has it.
func TestDB_LostEnd(t *testing.T) {
	fsys := vfs.NewMem()
	must.Succeed(t, fsys.MkdirAll(dir))
	d, err := openRows(fsys, nil)
	must.Succeed(t, err)
	store(t, d, map[string]string{"a": "1"})
	before := filesOf(t, fsys)
	store(t, d, map[string]string{"a": "2", "b": "2"})
	must.Succeed(t, d.Close())
	contents := filesOf(t, fsys)
	for name := range contents {
		if strings.HasPrefix(name, "MANIFEST-") {
			contents[name] = before[name]
		}
	}
	if _, err := openRows(withFiles(t, contents), nil); !errors.Is(err, meta.ErrDamaged) {
		t.Errorf("without a journal: %v", err)
	}
	for _, has := range []bool{false, true} {
		d, err := openRows(withFiles(t, contents), func(r meta.Reader) (bool, error) {
			if value, err := r.Get([]byte("a")); err != nil || string(value) != "1" {
				t.Errorf("the row is %q, %v", value, err)
			}
			return has, nil
		})
		if !has {
			if !errors.Is(err, meta.ErrDamaged) {
				t.Errorf("with a journal that has it not: %v", err)
			}
			continue
		}
		must.Succeed(t, err)
		if d.Unneeded() == nil || d.Last() != 1 {
			t.Errorf("unneeded: %v, checkpoint %d", d.Unneeded(), d.Last())
		}
		store(t, d, map[string]string{"a": "3"})
		if value, err := d.Get([]byte("a")); err != nil || string(value) != "3" {
			t.Errorf("the row is %q, %v", value, err)
		}
		must.Succeed(t, d.Close())
	}
}

// TestDB_OtherStore opens the rows of another store.
func TestDB_OtherStore(t *testing.T) {
	s := makeSample(t)
	_, err := open(meta.Options{FS: withFiles(t, s.files), Dir: dir, StoreID: [16]byte{9}})
	if !errors.Is(err, meta.ErrDamaged) || !strings.Contains(err.Error(), "of store 0102") {
		t.Errorf("%v", err)
	}
}

// TestDB_ReadOnly reads and changes nothing.
func TestDB_ReadOnly(t *testing.T) {
	s := makeSample(t)
	fsys := withFiles(t, s.files)
	fsys.SetHook(func(kind vfs.OpKind, name string) error {
		if kind.Changes() {
			t.Errorf("operation %v on %s", kind, name)
		}
		return nil
	})
	d, err := open(meta.Options{FS: fsys, Dir: dir, StoreID: storeID, ReadOnly: true})
	must.Succeed(t, err)
	d.Settle()
	must.Succeed(t, truthful(d, s.want))
	must.Succeed(t, d.Tidy(t.Context()))
	must.Succeed(t, d.Close())
}

// TestDB_Overlay stores a checkpoint over an overlay, as the check of a store does that is open
// for reading alone: what is below does not change.
func TestDB_Overlay(t *testing.T) {
	s := makeSample(t)
	fsys := withFiles(t, s.files)
	d, err := open(meta.Options{FS: vfs.Overlay(fsys), Dir: dir, StoreID: storeID, ReadOnly: true})
	must.Succeed(t, err)
	d.Settle()
	store(t, d, map[string]string{"another": "row"})
	want := maps.Clone(s.want)
	want["another"] = "row"
	must.Succeed(t, truthful(d, want))
	must.Succeed(t, d.Close())
	if !maps.EqualFunc(filesOf(t, fsys), s.files, bytes.Equal) {
		t.Error("the files have changed")
	}
}
