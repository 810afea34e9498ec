package meta

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"odx/backstore/reserve"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

const keptBytes = 256 << 10

// keptDB opens rows over a reserve of four files.
func keptDB(t testing.TB, m *vfs.Mem) (*DB, *reserve.Pool) {
	t.Helper()
	pool, err := reserve.Open(reserve.Options{FS: m, Dir: "/reserve", Bytes: keptBytes, Files: 4})
	must.Succeed(t, err)
	return openDB(t, m, "/rows", func(o *Options) { o.Reserve = pool }), pool
}

// someRows are changes of some of 200 rows, of which all together fit into a file of
// the reserve.
func someRows(rng *rand.Rand, want map[string]string) []Op {
	var ops []Op
	for range 1 + rng.IntN(60) {
		key := fmt.Sprintf("n%03d", rng.IntN(200))
		if rng.IntN(4) == 0 {
			ops = append(ops, del(key))
			delete(want, key)
		} else {
			value := string(make([]byte, rng.IntN(400)))
			ops = append(ops, op(key, value))
			want[key] = value
		}
	}
	return ops
}

// TestDB_FullDisk: on a disk without a free block, where another program takes what is
// freed, checkpoints are stored without end, in two copies, and the runs do not become
// more; with readers, restarts, and ends of the process at any change of a file.
func TestDB_FullDisk(t *testing.T) {
	rng := newRand(11)
	m := vfs.NewMem()
	db, pool := keptDB(t, m)
	want := make(map[string]string)
	for range 5 {
		changes(t, db, someRows(rng, want)...)
	}
	must.Succeed(t, pool.Fill())
	m.SetTaken(true)
	m.SetCapacity(m.Used())
	for i := range sample.Size(40, 200, 200) {
		before := maps.Clone(want)
		ops := someRows(rng, want)
		var left *vfs.Mem
		switch at, n := rng.IntN(60), 0; i % 4 {
		case 0:
			m.SetHook(func(kind vfs.OpKind, _ string) error {
				if n++; kind.Changes() && n > at && left == nil {
					left = m.ProcessClone()
				}
				return nil
			})
		case 1: // one who reads while it is replaced
			must.Succeed(t, db.View(func(r Reader) error { return sameRows(r, before) }))
		}
		changes(t, db, ops...)
		m.SetHook(nil)
		if left != nil {
			must.Succeed(t, db.Close())
			m = left
			db, pool = keptDB(t, m)
			if sameRows(db, before) != nil {
				before = want
			}
			must.Succeed(t, sameRows(db, before))
			changes(t, db, ops...)
		}
		must.Succeed(t, db.Tidy(context.Background()))
		must.Succeed(t, sameRows(db, want))
		must.Succeed(t, pool.Fill())
		if st := db.Stats(); st.Runs > 7 || st.Damaged > 0 || !pool.Full() {
			t.Fatalf("checkpoint %d: %+v, %d files left", i, st, pool.Len())
		}
		if free, err := m.Free("/"); err != nil || free > 0 {
			t.Fatalf("%d bytes are free, %v", free, err)
		}
	}
	must.Succeed(t, db.Close())
}

// TestDB_NoRoomForCopy: a copy that has to wait for room on the file system is no
// damage, and is made when there is room.
func TestDB_NoRoomForCopy(t *testing.T) {
	for name, tt := range map[string]struct {
		withReserve bool
		lose        func(t *testing.T, m *vfs.Mem, db *DB)
	}{
		"it was lost": {lose: func(t *testing.T, m *vfs.Mem, db *DB) {
			must.Succeed(t, m.Remove(db.current.runs[0].copies[1].name))
		}},
		"it was lost, and one file is in reserve": {withReserve: true, lose: func(t *testing.T, m *vfs.Mem, db *DB) {
			must.Succeed(t, m.Remove(db.current.runs[0].copies[1].name))
		}},
		"it was not made": {lose: func(*testing.T, *vfs.Mem, *DB) {}},
	} {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			reserved := func(o *Options) {
				if tt.withReserve {
					pool, err := reserve.Open(reserve.Options{FS: m, Dir: "/reserve", Bytes: keptBytes, Files: 2})
					must.Succeed(t, err)
					must.Succeed(t, pool.Fill())
					o.Reserve = pool
				}
			}
			db := openDB(t, m, "/rows", reserved)
			want := make(map[string]string)
			changes(t, db, someRows(newRand(3), want)...)
			must.Succeed(t, db.Close())
			tt.lose(t, m, db)
			m.SetTaken(true)
			m.SetCapacity(m.Used())
			db = openDB(t, m, "/rows", reserved)
			must.Succeed(t, db.Tidy(context.Background()))
			must.Succeed(t, db.Tidy(context.Background()))
			if n := db.Stats().Damaged; n > 0 {
				t.Errorf("for lack of room %d pieces are damaged", n)
			}
			must.Succeed(t, sameRows(db, want))
			m.SetCapacity(1 << 30)
			must.Succeed(t, db.Tidy(context.Background()))
			f, err := m.Open(db.current.runs[0].copies[1].name)
			if err != nil {
				t.Fatalf("with room there is no copy: %v", err)
			}
			must.Succeed(t, f.Close())
			must.Succeed(t, db.Close())
		})
	}
}

// TestDB_KeptDamage: damage behind a run in a file of the reserve is mended, or cut
// off, and costs no row.
func TestDB_KeptDamage(t *testing.T) {
	for _, at := range []int64{keptBytes - 1, keptBytes - 4096, keptBytes - 8192, keptBytes / 2} {
		for length := range int64(2) {
			t.Run(fmt.Sprint(at, length), func(t *testing.T) {
				m := vfs.NewMem()
				db, pool := keptDB(t, m)
				must.Succeed(t, pool.Fill())
				m.SetCapacity(m.Used())
				want := make(map[string]string)
				changes(t, db, someRows(newRand(3), want)...)
				if keptCopies(db.current.runs) != 2 {
					t.Fatal("the run is in no file of the reserve")
				}
				name := db.current.runs[0].name
				must.Succeed(t, db.Close())
				f, err := m.Open(name)
				must.Succeed(t, err)
				if length == 0 {
					must.Succeed(t, f.Truncate(at))
				} else {
					_, err := f.WriteAt([]byte{0xdb}, at)
					must.Succeed(t, err)
				}
				must.Succeed(t, f.Close())
				db, _ = keptDB(t, m)
				must.Succeed(t, sameRows(db, want))
				must.Succeed(t, db.Close())
				db, _ = keptDB(t, m)
				must.Succeed(t, sameRows(db, want))
				if n := db.Stats().Damaged; n > 0 {
					t.Errorf("%d pieces are damaged still", n)
				}
				must.Succeed(t, db.Close())
			})
		}
	}
}
