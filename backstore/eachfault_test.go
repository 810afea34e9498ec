package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// faulty is a store whose host fails for a moment in the middle of a piece of
// work that is always the same.
type faulty struct {
	t     *testing.T
	disk  *disk
	fault error
	store *Store
	model *maybe
	value uint32
}

const faultySize = 1 << 20

// try does a step, which may fail as the host does and in no other way.
func (f *faulty) try(what string, step func(ctx context.Context) error) error {
	f.t.Helper()
	err := step(context.Background())
	if err != nil && !errors.Is(err, f.fault) {
		f.t.Fatalf("%s: a failure that is not the host's: %v", what, err)
	}
	if f.fault == syscall.ENOSPC && err != nil && !errors.Is(err, ErrNoSpace) {
		f.t.Fatalf("%s: the disk is full, and the error is no ErrNoSpace: %v", what, err)
	}
	return err
}

// until does a step again and again: the fault ends.
func (f *faulty) until(what string, step func(ctx context.Context) error) {
	f.t.Helper()
	for range 20 {
		if f.try(what, step) == nil {
			return
		}
	}
	f.t.Fatalf("%s: it still fails", what)
}

func (f *faulty) volume() *Volume {
	v, err := f.store.Volume("v")
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// change does a step that makes sectors from at on have these values. Where it
// fails the model learns how far it came.
func (f *faulty) change(what string, at int, vals []uint32, step func(ctx context.Context, v *Volume) error) {
	f.t.Helper()
	v := f.volume()
	err := f.try(what, func(ctx context.Context) error { return step(ctx, v) })
	f.model.wrote(at, vals, err)
	if err == nil {
		return
	}
	if problem := f.model.settle(v); problem != "" {
		f.t.Fatalf("after %s failed: %s", what, problem)
	}
}

func (f *faulty) write(at, sectors int) {
	f.value++
	vals := slices.Repeat([]uint32{f.value}, sectors)
	f.change("write", at, vals, func(ctx context.Context, v *Volume) error {
		return v.WriteAt(ctx, content(vals), int64(at)*sector)
	})
}

func (f *faulty) zero(at, sectors int) {
	f.change("zero", at, make([]uint32, sectors), func(ctx context.Context, v *Volume) error {
		return v.Zero(ctx, int64(at)*sector, int64(sectors)*sector)
	})
}

func (f *faulty) copy(from, to, sectors int) {
	vals := slices.Clone(f.model.sure[from : from+sectors])
	length := int64(sectors) * sector
	f.change("copy", to, vals, func(ctx context.Context, v *Volume) error {
		n, err := v.Snapshot(ctx, []Range{{Offset: int64(from) * sector, Length: length}}, nil)
		if err != nil {
			return err
		}
		defer n.Release()
		if err := f.store.DeleteSnapshot(ctx, n.ID()); err != nil {
			return err
		}
		_, err = v.Map(ctx, int64(to)*sector, n, 0, length)
		return err
	})
}

// other makes a volume, a snapshot and a record, and deletes all but the record.
// Each is done until it works, so that none is there in the end.
func (f *faulty) other() {
	f.until("create another", func(ctx context.Context) error {
		if _, err := f.store.CreateVolume(ctx, "w", faultySize); !errors.Is(err, ErrExists) {
			return err
		}
		return f.store.Flush(ctx)
	})
	w, err := f.store.Volume("w")
	if err != nil {
		f.t.Fatal(err)
	}
	f.until("write to it", func(ctx context.Context) error { return w.WriteAt(ctx, content([]uint32{1, 2, 3}), 0) })
	f.until("snapshot", func(ctx context.Context) error {
		n, err := w.Snapshot(ctx, []Range{{Length: faultySize}}, nil)
		if err == nil {
			n.Release()
		}
		return err
	})
	f.until("record", func(ctx context.Context) error {
		return f.store.PutRecords(ctx, Record{Key: []byte("kept"), Value: []byte("1")}, Record{Key: []byte("gone"), Value: []byte("1")})
	})
	f.try("checkpoint", f.checkpoint)
	f.until("delete it", func(ctx context.Context) error {
		if err := f.store.DeleteVolume(ctx, "w"); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	for _, id := range snapshotIDs(f.store) {
		f.until("delete a snapshot", func(ctx context.Context) error { return f.store.DeleteSnapshot(ctx, id) })
	}
	f.until("delete a record", func(ctx context.Context) error {
		return f.store.PutRecords(ctx, Record{Key: []byte("gone")})
	})
	f.try("checkpoint", f.checkpoint)
}

func (f *faulty) open(ctx context.Context) (err error) {
	f.store, err = Open(ctx, f.disk.options(Options{DedupUnit: 8 << 10}))
	return err
}

func (f *faulty) create(ctx context.Context) error {
	_, err := f.store.CreateVolume(ctx, "v", faultySize)
	if errors.Is(err, ErrExists) { // made, and the flush had failed
		return f.store.Flush(ctx)
	}
	return err
}

func (f *faulty) flush(ctx context.Context) error      { return f.store.Flush(ctx) }
func (f *faulty) checkpoint(ctx context.Context) error { return f.store.Checkpoint(ctx) }
func (f *faulty) clean(ctx context.Context) error      { return f.store.Clean(ctx) }
func (f *faulty) close(context.Context) error          { return f.store.Close() }

// work is what the host fails in the middle of.
func (f *faulty) work() {
	f.until("open", f.open)
	f.until("create", f.create)
	f.write(0, 512)
	f.write(600, 3)
	f.try("flush", f.flush)
	f.write(0, 64)
	f.copy(0, 1024, 256)
	f.try("flush", f.flush)
	f.try("checkpoint", f.checkpoint)
	f.zero(100, 300)
	f.write(8, 8)
	f.other()
	f.try("flush", f.flush)
	f.try("clean", f.clean)
	f.write(1024, 16)
	f.until("flush", f.flush)
	f.try("close", f.close)
	f.until("open again", f.open)
	f.write(40, 9)
	f.try("checkpoint", f.checkpoint)
	f.write(1030, 20)
	f.until("flush", f.flush)
}

// others compares what is not in the model.
func (f *faulty) others(when string, s *Store) {
	f.t.Helper()
	if _, err := s.Volume("w"); !errors.Is(err, ErrNotFound) {
		f.t.Fatalf("%s: a deleted volume is there: %v", when, err)
	}
	if ids := snapshotIDs(s); len(ids) > 0 {
		f.t.Fatalf("%s: deleted snapshots %d are there", when, ids)
	}
	if _, err := s.GetRecord([]byte("gone")); !errors.Is(err, ErrNotFound) {
		f.t.Fatalf("%s: a deleted record is there: %v", when, err)
	}
	if v, err := s.GetRecord([]byte("kept")); err != nil || string(v) != "1" {
		f.t.Fatalf("%s: a record is %q: %v", when, v, err)
	}
}

// sound compares a store with the model, proves its references and closes it.
func (f *faulty) sound(when string, s *Store) {
	f.t.Helper()
	v, err := s.Volume("v")
	if err != nil {
		f.t.Fatalf("%s: %v", when, err)
	}
	f.model.also = make([][]uint32, len(f.model.sure))
	if problem := f.model.settle(v); problem != "" {
		f.t.Fatalf("%s: %s", when, problem)
	}
	f.others(when, s)
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		f.t.Fatalf("%s: %v %v", when, findings, err)
	}
	if err := s.Close(); err != nil {
		f.t.Fatalf("%s: %v", when, err)
	}
}

// TestEachFault lets each operation of the host that changes something fail in
// turn, alone or with those that follow: what was acknowledged is there, and
// nothing has to be started again.
func TestEachFault(t *testing.T) {
	for fault, burst := range map[error]int64{syscall.ENOSPC: 1, syscall.EIO: 6} {
		t.Run(fmt.Sprintf("%v, %d in a row", fault, burst), func(t *testing.T) {
			first := int64(1)
			for eachFault(t, fault, first, first+burst) {
				first += sample.Size[int64](100, 20, 1)
			}
			t.Logf("%d operations", first-1)
		})
	}
}

// eachFault lets the operations [first, end) fail, counted from 1, and reports
// whether there are that many.
func eachFault(t *testing.T, fault error, first, end int64) bool {
	const sectors = faultySize / sector
	d := newDisk()
	var count atomic.Int64
	fail := func() error {
		if n := count.Add(1); first <= n && n < end {
			return fault
		}
		return nil
	}
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind.Changes() {
			return fail()
		}
		return nil
	})
	f := &faulty{t: t, disk: d, fault: fault, model: &maybe{make([]uint32, sectors), make([][]uint32, sectors)}}
	f.work()
	d.fs.SetHook(nil)
	crashed := d.crash(rand.New(rand.NewPCG(uint64(first), 5)))
	f.sound(fmt.Sprintf("fault %d", first), f.store)
	f.sound(fmt.Sprintf("fault %d, after a power cut", first), crashed.open(t, 8<<10))
	return count.Load() >= first
}
