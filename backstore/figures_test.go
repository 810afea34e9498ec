package backstore

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// figures returns the figures of a store.
func figures(t *testing.T, s *Store) Figures {
	t.Helper()
	f, err := s.Figures()
	must.Succeed(t, err)
	return f
}

// TestStore_Figures: what Stats has to count, Figures has from counters.
func TestStore_Figures(t *testing.T) {
	const size = 8 << 20
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", size)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, size), 0))
	n, err := v.Snapshot(ctx, []Range{{Length: size}}, nil)
	must.Succeed(t, err)
	n.Release()
	must.Succeed(t, s.Flush(ctx))
	must.Succeed(t, s.Checkpoint(ctx))

	st, err := s.Stats(ctx)
	must.Succeed(t, err)
	f := figures(t, s)
	if f.LiveBytes != st.LiveBytes || f.PhysicalBytes != st.PhysicalBytes || f.Snapshots != st.Snapshots ||
		f.ReserveBytes != st.ReserveBytes || f.CapacityBytes != st.CapacityBytes {
		t.Errorf("got  %+v\nwant %+v", f, st)
	}
	if f.FreeBytes <= 0 || f.Full || f.Failed != nil || f.Damaged != 0 {
		t.Errorf("not healthy: %+v", f)
	}
	if f.Journal.Syncs.Total() == 0 || f.Journal.Failures != 0 {
		t.Errorf("journal: %+v", f.Journal)
	}
	c := f.Checkpoints
	if c.Took.Total() == 0 || c.Failures != 0 || c.Failure != nil || time.Since(c.Last) > time.Minute {
		t.Errorf("checkpoints: %+v", c)
	}
}

// TestStore_Figures_Faults: failed syncs and checkpoints are counted, and the failure is
// there until one succeeds.
func TestStore_Figures_Faults(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	must.Succeed(t, s.Flush(ctx))
	before := figures(t, s)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, 64<<10), 0))
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := s.Checkpoint(ctx); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a checkpoint on a disk that fails: %v", err)
	}
	f := figures(t, s)
	if f.Checkpoints.Failures <= before.Checkpoints.Failures || !errors.Is(f.Checkpoints.Failure, syscall.EIO) {
		t.Errorf("checkpoints: %+v, before %+v", f.Checkpoints, before.Checkpoints)
	}
	if err := s.Flush(ctx); err == nil {
		t.Fatal("a flush on a disk that fails succeeded")
	}
	if f := figures(t, s); f.Journal.Failures <= before.Journal.Failures {
		t.Errorf("journal: %+v, before %+v", f.Journal, before.Journal)
	}
	d.fs.SetHook(nil)
	must.Succeed(t, s.Checkpoint(ctx))
	if f := figures(t, s); f.Checkpoints.Failure != nil {
		t.Errorf("after a checkpoint that was stored: %+v", f.Checkpoints)
	}
}

// TestStore_Figures_Cleaning: what is moved out of segments is counted.
func TestStore_Figures_Cleaning(t *testing.T) {
	s, live := mixed(t, Options{})
	defer s.Close()
	must.Succeed(t, s.Clean(context.Background()))
	if c := figures(t, s).Cleaning; c.MovedBytes < uint64(live) || c.Segments == 0 || c.Failures != 0 {
		t.Errorf("%+v, after %d live bytes were moved", c, live)
	}
}

// stallingFS is a file system whose files do not come back from Sync while answer is there.
type stallingFS struct {
	vfs.FS
	asked  chan struct{}
	answer atomic.Pointer[chan struct{}] // nil: they do
}

func (f *stallingFS) Create(name string) (vfs.File, error) { return f.file(f.FS.Create(name)) }
func (f *stallingFS) Open(name string) (vfs.File, error)   { return f.file(f.FS.Open(name)) }

func (f *stallingFS) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return stallingFile{file, f}, nil
}

type stallingFile struct {
	vfs.File
	fs *stallingFS
}

func (f stallingFile) Sync() error {
	if answer := f.fs.answer.Load(); answer != nil {
		select {
		case f.fs.asked <- struct{}{}:
		default:
		}
		<-*answer
	}
	return f.File.Sync()
}

// TestStore_Ailments_Syncing: a disk that does not come back from a flush is known, without
// waiting for it.
func TestStore_Ailments_Syncing(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	disk := &stallingFS{FS: d.fs, asked: make(chan struct{}, 1)}
	o := d.options(Options{})
	o.FS = disk
	s, err := Open(ctx, o)
	must.Succeed(t, err)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	must.Succeed(t, s.Flush(ctx))
	answer := make(chan struct{})
	disk.answer.Store(&answer)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, 4<<10), 0))
	flushed := make(chan error, 1)
	go func() { flushed <- s.Flush(ctx) }()
	<-disk.asked
	for s.Ailments().Syncing == 0 { // the file that is synced first may be another one
		runtime.Gosched()
	}
	if a := s.Ailments(); a.Failed != nil || a.Checkpoint != nil || a.Full {
		t.Errorf("while the disk stalls: %+v", a)
	}
	disk.answer.Store(nil)
	close(answer)
	must.Succeed(t, <-flushed)
	for s.Ailments() != (Ailments{}) { // a sync in the background may go on
		runtime.Gosched()
	}
}
