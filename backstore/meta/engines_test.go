package meta_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/meta/pebblekv"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// engines are all that store rows in files.
var engines = []meta.Engine{meta.Tables(), pebblekv.Engine()}

// openKV opens the rows in dir for writing.
func openKV(t testing.TB, e meta.Engine, fsys vfs.FS, dir string, change ...func(*meta.Options)) meta.KV {
	t.Helper()
	must.Succeed(t, fsys.MkdirAll(dir))
	o := meta.Options{FS: fsys, Dir: dir, StoreID: meta.TestStore}
	for _, c := range change {
		c(&o)
	}
	kv, err := e.Open(o)
	must.Succeed(t, err)
	kv.Settle()
	return kv
}

// journaled: the journal has what comes after the checkpoint that can be read.
func journaled(o *meta.Options) { o.Unneeded = suffices }

func suffices(meta.Reader) (bool, error) { return true, nil }

// underTest is what the conformance suite runs on.
type underTest struct {
	meta.Reader
	update func(ops []meta.Op) error
	tidy   func() error
	reopen func() meta.Reader
}

// everyEngine runs a test on the rows on disk of each engine and on the plain twin.
func everyEngine(t *testing.T, test func(t *testing.T, e *underTest)) {
	for _, engine := range engines {
		for name, fsys := range map[string]vfs.FS{"os": vfs.OS(), "memory": vfs.NewMem()} {
			t.Run(engine.Kind().String()+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				kv := openKV(t, engine, fsys, dir)
				e := &underTest{Reader: kv}
				e.update = func(ops []meta.Op) error { return meta.StoreOps(kv, ops) }
				e.tidy = func() error { return kv.Tidy(context.Background()) }
				e.reopen = func() meta.Reader {
					must.Succeed(t, kv.Close())
					kv = openKV(t, engine, fsys, dir)
					e.Reader = kv
					return kv
				}
				test(t, e)
				must.Succeed(t, kv.Close())
			})
		}
	}
	t.Run("twin", func(t *testing.T) {
		m := meta.NewMem()
		test(t, &underTest{
			Reader: m, update: m.Update,
			tidy: func() error { return nil }, reopen: func() meta.Reader { return m },
		})
	})
}

// everyKV runs a test on each engine in memory.
func everyKV(t *testing.T, test func(t *testing.T, e meta.Engine, fsys *vfs.Mem, kv meta.KV)) {
	for _, engine := range engines {
		t.Run(engine.Kind().String(), func(t *testing.T) {
			fsys := vfs.NewMem()
			test(t, engine, fsys, openKV(t, engine, fsys, "/m"))
		})
	}
}

func TestReader_Conformance(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *underTest) {
		rng := rand.New(rand.NewPCG(1, 2))
		want := map[string]string{}
		must.Succeed(t, meta.SameRows(e, want))
		for i := range sample.Size(14, 40, 40) {
			must.Succeed(t, e.update(meta.RandomOps(rng, want)))
			must.Succeed(t, meta.SameRows(e, want))
			switch i % 7 {
			case 2:
				must.Succeed(t, e.tidy())
			case 5:
				e.reopen()
			default:
				continue
			}
			must.Succeed(t, meta.SameRows(e, want))
		}
	})
}

func TestReader_Limits(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *underTest) {
		large := meta.Op{Key: bytes.Repeat([]byte("k"), meta.MaxKey), Value: make([]byte, meta.MaxValue)}
		must.Succeed(t, e.update([]meta.Op{large, {Key: []byte("b"), Value: []byte{}}}))
		got, err := e.Get(large.Key)
		if err != nil || !bytes.Equal(got, large.Value) {
			t.Errorf("the largest row: %d bytes, %v", len(got), err)
		}
		if got, err := e.Get([]byte("b")); err != nil || got == nil || len(got) > 0 {
			t.Errorf("row of no bytes: %v, %v", got, err)
		}
		for name, op := range map[string]meta.Op{
			"key":   {Key: make([]byte, meta.MaxKey+1), Value: []byte{1}},
			"value": {Key: []byte("x"), Value: make([]byte, meta.MaxValue+1)},
		} {
			meta.WantErr(t, "long "+name, e.update([]meta.Op{op}), meta.ErrTooLarge)
		}
		if _, err := e.Get([]byte("x")); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("after a refused update: %v", err)
		}
	})
}

func TestReader_ScanStops(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *underTest) {
		must.Succeed(t, e.update([]meta.Op{meta.MakeOp("a", "1"), meta.MakeOp("b", "2"), meta.MakeOp("c", "3")}))
		stop := errors.New("stop")
		n := 0
		err := e.Scan(nil, func(key, value []byte) error {
			if n++; n == 2 {
				return stop
			}
			return nil
		})
		if err != stop || n != 2 {
			t.Errorf("scan ended with %v after %d rows", err, n)
		}
	})
}

func TestKV_View(t *testing.T) {
	everyKV(t, func(t *testing.T, _ meta.Engine, _ *vfs.Mem, db meta.KV) {
		meta.Changes(t, db, meta.MakeOp("a", "1"), meta.MakeOp("b", "1"))
		must.Succeed(t, db.View(func(r meta.Reader) error {
			for i := range 20 {
				meta.Changes(t, db, meta.MakeOp("a", fmt.Sprint(i)), meta.MakeDel("b"))
			}
			must.Succeed(t, db.Tidy(context.Background()))
			return meta.SameRows(r, map[string]string{"a": "1", "b": "1"})
		}))
		must.Succeed(t, meta.SameRows(db, map[string]string{"a": "19"}))
		must.Succeed(t, db.Close())
		if _, err := db.Get([]byte("a")); !errors.Is(err, meta.ErrClosed) {
			t.Errorf("get after close: %v", err)
		}
		meta.WantErr(t, "store after close", meta.StoreOps(db, nil), meta.ErrClosed)
		meta.WantErr(t, "close after close", db.Close(), meta.ErrClosed)
	})
}

// TestKV_StoreFails fails each operation of a checkpoint that changes something, in turn.
func TestKV_StoreFails(t *testing.T) {
	everyKV(t, func(t *testing.T, e meta.Engine, fsys *vfs.Mem, kv meta.KV) {
		meta.Changes(t, kv, meta.MakeOp("a", "1"))
		broken := errors.New("broken")
		first := 1
		for ; ; first++ {
			n, failed := 0, false
			fsys.SetHook(func(kind vfs.OpKind, _ string) error {
				if kind.Changes() {
					if n++; n == first {
						failed = true
						return broken
					}
				}
				return nil
			})
			err := meta.StoreOps(kv, []meta.Op{meta.MakeOp("a", fmt.Sprint(first)), meta.MakeOp("b", "x")})
			fsys.SetHook(nil)
			if !failed {
				must.Succeed(t, err)
				break
			}
			// What only removes may fail.
			got, gerr := kv.Get([]byte("a"))
			if gerr != nil || err == nil && string(got) != fmt.Sprint(first) {
				t.Fatalf("fault %d: %q, %v, after %v", first, got, gerr, err)
			}
			// A power cut now may leave it or not.
			crashed := openKV(t, e, fsys.CrashClone(meta.NewRand(uint64(first))), "/m", journaled)
			got, gerr = crashed.Get([]byte("a"))
			if gerr != nil || err == nil && string(got) != fmt.Sprint(first) {
				t.Fatalf("fault %d and a power cut: %q, %v, after %v", first, got, gerr, err)
			}
			must.Succeed(t, crashed.Close())
			meta.Changes(t, kv, meta.MakeOp("a", "again"))
			must.Succeed(t, kv.Tidy(t.Context()))
			must.Succeed(t, meta.SameRows(kv, after(err == nil || has(t, kv, "b"))))
			meta.Changes(t, kv, meta.MakeDel("b"))
		}
		if first < 5 {
			t.Errorf("a checkpoint is %d operations", first)
		}
		must.Succeed(t, kv.Close())
	})
}

func has(t *testing.T, r meta.Reader, key string) bool {
	_, err := r.Get([]byte(key))
	if !errors.Is(err, meta.ErrNotFound) {
		must.Succeed(t, err)
	}
	return err == nil
}

func after(withB bool) map[string]string {
	want := map[string]string{"a": "again"}
	if withB {
		want["b"] = "x"
	}
	return want
}

// TestKV_PowerCuts cuts the power within checkpoints and tidying: each checkpoint is there
// wholly or not at all, and one that was acknowledged is.
func TestKV_PowerCuts(t *testing.T) {
	everyKV(t, func(t *testing.T, e meta.Engine, fsys *vfs.Mem, kv meta.KV) {
		rng := meta.NewRand(17)
		var mu sync.Mutex // guards what follows, and is held while power is cut
		type cut struct {
			disk     *vfs.Mem
			from, to int // the checkpoints that it may hold
		}
		var cuts []cut
		stored, storing := 0, 0
		fsys.SetHook(func(kind vfs.OpKind, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			if kind.Changes() && rng.IntN(6) == 0 {
				cuts = append(cuts, cut{fsys.CrashClone(rng), stored, storing})
			}
			return nil
		})
		for i := range 30 {
			mu.Lock()
			storing = i + 1
			mu.Unlock()
			meta.Changes(t, kv, append(meta.Numbered(20, i+1), meta.MakeOp(fmt.Sprintf("only %02d", i+1), "x"), meta.MakeDel(fmt.Sprintf("only %02d", i)))...)
			mu.Lock()
			stored = i + 1
			mu.Unlock()
			if i%4 == 3 {
				must.Succeed(t, kv.Tidy(t.Context()))
			}
		}
		fsys.SetHook(nil)
		must.Succeed(t, kv.Close())
		for i, c := range cuts {
			if err := holdsOne(t, e, c.disk, c.from, c.to); err != nil {
				t.Fatalf("power cut %d, between checkpoints %d and %d: %v", i, c.from, c.to, err)
			}
		}
		t.Logf("%d power cuts", len(cuts))
	})
}

// holdsOne proves that the rows are of one of the checkpoints, and that they can be used.
func holdsOne(t *testing.T, e meta.Engine, disk *vfs.Mem, from, to int) error {
	if names, err := disk.List("/m"); from == 0 && (err != nil || len(names) == 0) {
		return nil
	}
	kv, err := e.Open(meta.Options{FS: disk, Dir: "/m", StoreID: meta.TestStore, Unneeded: suffices})
	if err != nil && from == 0 {
		return nil // a store that is being made is made again
	}
	if err != nil {
		return err
	}
	kv.Settle()
	found := 0
	first := ""
	err = kv.Scan(nil, func(key, value []byte) error {
		if bytes.HasPrefix(key, []byte("only ")) {
			found++
			first += string(key)
			return nil
		}
		if n := string(value[:4]); fmt.Sprintf("%04d", from) != n && fmt.Sprintf("%04d", to) != n {
			return fmt.Errorf("row %q is of checkpoint %s", key, n)
		}
		return nil
	})
	if err == nil && found > 1 {
		err = fmt.Errorf("rows of several checkpoints: %s", first)
	}
	if err == nil && from > 0 && found == 0 {
		err = errors.New("no checkpoint")
	}
	if err == nil {
		err = errors.Join(meta.StoreOps(kv, meta.Numbered(20, 99)), kv.Tidy(t.Context()))
	}
	return errors.Join(err, kv.Close())
}

// TestKV_Concurrent stores checkpoints while others read, merge and scrub. All rows
// of a checkpoint have its number: a point-in-time view has one number.
func TestKV_Concurrent(t *testing.T) {
	for _, e := range engines {
		t.Run(e.Kind().String(), func(t *testing.T) { concurrent(t, e) })
	}
}

func concurrent(t *testing.T, e meta.Engine) {
	db := openKV(t, e, vfs.NewMem(), "/m", func(o *meta.Options) { o.MergeFloor = 40 << 10 })
	const rows, checkpoints = 40, 60
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	again := func(what string, step func() error) {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := step(); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	meta.Changes(t, db, meta.Numbered(rows, 0)...)
	again("tidy", func() error { return db.Tidy(ctx) })
	again("scrub", func() error { return db.Scrub(ctx, func(ctx context.Context, _ int) error { return ctx.Err() }) })
	for range 2 {
		again("view", func() error {
			return db.View(func(r meta.Reader) error {
				first, n := "", 0
				err := r.Scan(nil, func(_, value []byte) error {
					if n++; n == 1 {
						first = string(value[:4])
					}
					if string(value[:4]) != first {
						return fmt.Errorf("rows of %s and of %s", first, value[:4])
					}
					return nil
				})
				if err == nil && n != rows {
					err = fmt.Errorf("%d rows", n)
				}
				return err
			})
		})
		again("get", func() error {
			_, err := db.Get([]byte("row 07"))
			return err
		})
	}
	for i := range checkpoints {
		meta.Changes(t, db, meta.Numbered(rows, i+1)...)
	}
	stop()
	work.Wait()
	must.Succeed(t, db.Close())
}
