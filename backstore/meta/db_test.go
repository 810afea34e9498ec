package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

var testStore = [16]byte{1, 2, 3}

func openDB(t testing.TB, fsys vfs.FS, dir string, change ...func(*Options)) *DB {
	t.Helper()
	must.Succeed(t, fsys.MkdirAll(dir))
	o := Options{FS: fsys, Dir: dir, StoreID: testStore}
	for _, c := range change {
		c(&o)
	}
	db, err := Open(o)
	must.Succeed(t, err)
	db.Settle()
	return db
}

// changes stores a checkpoint.
func changes(t testing.TB, db KV, ops ...Op) {
	t.Helper()
	must.Succeed(t, storeOps(db, ops))
}

func storeOps(db KV, ops []Op) error {
	last := make(map[string]Op)
	for _, op := range ops {
		last[string(op.Key)] = op
	}
	return db.Store(expected(ops), func(put func(Op) error) error {
		for _, key := range slices.Sorted(maps.Keys(last)) {
			if err := put(last[key]); err != nil {
				return err
			}
		}
		return nil
	})
}

// rowsOf returns all rows below a prefix.
func rowsOf(r Reader, prefix string) (map[string]string, error) {
	found := make(map[string]string)
	last := ""
	err := r.Scan([]byte(prefix), func(key, value []byte) error {
		if string(key) <= last {
			return fmt.Errorf("key %q after %q", key, last)
		}
		last = string(key)
		found[last] = string(value)
		return nil
	})
	return found, err
}

// sameRows compares a reader with what it has to hold, by scans and gets.
func sameRows(r Reader, want map[string]string) error {
	for _, prefix := range []string{"", "a", "n", "n\x00\x00", "zzz"} {
		found, err := rowsOf(r, prefix)
		if err != nil {
			return err
		}
		part := maps.Clone(want)
		maps.DeleteFunc(part, func(key, _ string) bool { return !bytes.HasPrefix([]byte(key), []byte(prefix)) })
		if !maps.Equal(found, part) {
			return fmt.Errorf("scan of %q finds %d rows, want %d", prefix, len(found), len(part))
		}
	}
	for key, value := range want {
		got, err := r.Get([]byte(key))
		if err != nil || string(got) != value {
			return fmt.Errorf("row %q is %d bytes, want %d: %w", key, len(got), len(value), err)
		}
		for _, missing := range []string{key + "\x00", key[:len(key)-1], key + "zz"} {
			if _, ok := want[missing]; ok {
				continue
			}
			if v, err := r.Get([]byte(missing)); !errors.Is(err, ErrNotFound) || v != nil {
				return fmt.Errorf("row %q, which does not exist: %q, %w", missing, v, err)
			}
		}
	}
	return nil
}

// randomOps changes some rows of want, and returns how.
func randomOps(rng *rand.Rand, want map[string]string) []Op {
	var ops []Op
	for range 1 + rng.IntN(60) {
		key := fmt.Sprintf("n\x00\x00%c%c", rng.IntN(3), rng.IntN(200))
		if rng.IntN(3) == 0 {
			key = []string{"a", "m", "record with a long name", "s1", "z"}[rng.IntN(5)]
		}
		if rng.IntN(4) == 0 {
			delete(want, key)
			ops = append(ops, Op{Key: []byte(key)})
			continue
		}
		value := make([]byte, []int{0, 10, 300, 5000}[rng.IntN(4)])
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		want[key] = string(value)
		ops = append(ops, Op{Key: []byte(key), Value: value})
	}
	return ops
}

func TestDB_Tidy(t *testing.T) {
	fsys := vfs.NewMem()
	db := openDB(t, fsys, "/m")
	rng := rand.New(rand.NewPCG(3, 4))
	want := map[string]string{}
	for range 100 {
		must.Succeed(t, storeOps(db, randomOps(rng, want)))
		must.Succeed(t, db.Tidy(context.Background()))
		if st := db.Stats(); st.Runs > mergeRuns+1 {
			t.Fatalf("%d runs are left", st.Runs)
		}
	}
	must.Succeed(t, sameRows(db, want))
	names, err := fsys.List("/m")
	must.Succeed(t, err)
	if got, want := len(names), 2*db.Stats().Runs; got != want {
		t.Errorf("%d files for %d runs: %q", got, db.Stats().Runs, names)
	}
	must.Succeed(t, db.Close())
}

func TestDB_TidyOnFullDisk(t *testing.T) {
	fsys := vfs.NewMem()
	db := openDB(t, fsys, "/m")
	fsys.SetFull(true)
	want := map[string]string{}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 3 * mergeRuns {
		must.Succeed(t, storeOps(db, randomOps(rng, want)))
		must.Succeed(t, db.Tidy(context.Background()))
	}
	if st := db.Stats(); st.Runs != 3*mergeRuns {
		t.Errorf("%d runs, want them to wait for space", st.Runs)
	}
	must.Succeed(t, sameRows(db, want))
	fsys.SetFull(false)
	must.Succeed(t, db.Tidy(context.Background()))
	if st := db.Stats(); st.Runs > mergeRuns+1 {
		t.Errorf("%d runs when there is space", st.Runs)
	}
	must.Succeed(t, db.Close())
}

func TestDB_StoreFails(t *testing.T) {
	fsys := vfs.NewMem()
	db := openDB(t, fsys, "/m")
	changes(t, db, op("a", "1"))
	broken := errors.New("broken")
	for first := 1; ; first++ {
		n := 0
		fsys.SetHook(func(kind vfs.OpKind, _ string) error {
			if kind.Changes() {
				if n++; n == first {
					return broken
				}
			}
			return nil
		})
		err := storeOps(db, []Op{op("a", fmt.Sprint(first)), op("b", "x")})
		fsys.SetHook(nil)
		if err == nil {
			break
		}
		wantErr(t, "store", err, broken)
		want := map[string]string{"a": "1"}
		if first > 1 {
			must.Succeed(t, sameRows(db, want))
		}
		// A power cut now may leave it or not.
		crashed := openDB(t, fsys.CrashClone(newRand(uint64(first))), "/m")
		if got, err := crashed.Get([]byte("a")); err != nil || string(got) != "1" && string(got) != fmt.Sprint(first) {
			t.Fatalf("fault %d: %q, %v", first, got, err)
		}
		must.Succeed(t, crashed.Close())
	}
	must.Succeed(t, db.Close())
	if db.Last() < 3 {
		t.Errorf("checkpoint %d: no number was left out for one that failed", db.Last())
	}
}

func expected(ops []Op) (bytes int64) {
	for _, op := range ops {
		bytes += int64(len(op.Key) + len(op.Value))
	}
	return bytes
}
