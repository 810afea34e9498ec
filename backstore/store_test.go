package backstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
)

func createVolume(t *testing.T, s *Store, name string, size int64) *Volume {
	t.Helper()
	v, err := s.CreateVolume(context.Background(), name, size)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestStoreHasOneOwner(t *testing.T) {
	d := newDisk()
	s := d.open(t, 16<<10)
	if _, err := Open(context.Background(), d.options(Options{DedupUnit: 16 << 10})); !errors.Is(err, ErrLocked) {
		t.Errorf("a second owner: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("flush after close: %v, want ErrClosed", err)
	}
	again := d.open(t, 4<<10)
	defer again.Close()
	if again.ID() != s.ID() || again.DedupUnit() != 16<<10 {
		t.Errorf("opened again it is store %x with unit %d, was %x with 16384", again.ID(), again.DedupUnit(), s.ID())
	}
}

// damage flips a byte of the stored data that begins like this.
func damageFiles(t *testing.T, d *disk, like []byte) {
	t.Helper()
	names, err := d.fs.List("/store/" + layout.SegmentDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := d.fs.Open(filepath.Join("/store", layout.SegmentDir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		size, _ := f.Size()
		p := make([]byte, size)
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(p, like); at >= 0 {
			if _, err := f.WriteAt([]byte{p[at] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the data is nowhere in the segments")
}

func TestFullHostFailsWritesOnly(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	if err := v.WriteAt(ctx, randomBytes(1, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
	d.fs.SetFull(true)
	s.space.measure()
	if err := v.WriteAt(ctx, randomBytes(2, 4096), 0); !errors.Is(err, ErrNoSpace) {
		t.Errorf("write to a full file system: %v, want ErrNoSpace", err)
	}
	if err := v.ReadAt(ctx, make([]byte, 64<<10), 0); err != nil {
		t.Error(err)
	}
	if err := v.Unmap(ctx, 0, 4096); err != nil {
		t.Error(err)
	}
	d.fs.SetFull(false)
	s.space.measure()
	if err := v.WriteAt(ctx, randomBytes(2, 4096), 0); err != nil {
		t.Errorf("write after there is room again: %v", err)
	}
}

// A write that was aborted while it waited for the volume must not happen later.
func TestEndedOperationChangesNothing(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	snap, err := v.Snapshot(context.Background(), []Range{{Offset: 0, Length: 1 << 20}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	data := randomBytes(1, 64<<10)
	if err := v.WriteAt(context.Background(), data, 0); err != nil {
		t.Fatal(err)
	}
	ops := map[string]func(ctx context.Context) error{
		"write": func(ctx context.Context) error { return v.WriteAt(ctx, make([]byte, 4096), 0) },
		"part":  func(ctx context.Context) error { return v.WriteAt(ctx, make([]byte, 512), 0) },
		"unmap": func(ctx context.Context) error { return v.Unmap(ctx, 0, 8192) },
		"map":   func(ctx context.Context) error { _, err := v.Map(ctx, 0, snap, 0, 8192); return err },
		"snapshot": func(ctx context.Context) error {
			_, err := v.Snapshot(ctx, []Range{{Offset: 0, Length: 512}}, nil)
			return err
		},
	}
	for name, op := range ops {
		v.mu.Lock()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- op(ctx) }()
		cancel()
		v.mu.Unlock()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	p := make([]byte, len(data))
	if err := v.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, data) {
		t.Errorf("an ended operation changed the data: %v", err)
	}
}

func TestSynchronousWritersShareSyncs(t *testing.T) {
	const writers, writes = 64, 20
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	var syncs atomic.Int64
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpSync {
			syncs.Add(1)
		}
		return nil
	})
	for round := range writes {
		var written, flushed sync.WaitGroup
		all := make(chan struct{})
		written.Add(writers)
		for w := range writers {
			flushed.Go(func() {
				if err := v.WriteAt(ctx, randomBytes(uint64(w*writes+round), 4096), int64(w)*4096); err != nil {
					t.Error(err)
				}
				written.Done()
				<-all
				if err := v.Flush(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		written.Wait()
		close(all)
		flushed.Wait()
	}
	d.fs.SetHook(nil)
	if n := syncs.Load(); n > 4*writes {
		t.Errorf("%d rounds of %d synchronous writers took %d syncs", writes, writers, n)
	}
}

// TestReadOfVolumeDeletedMeanwhile: a read that is longer than what is looked
// up at once must not go on with zeros.
func TestReadOfVolumeDeletedMeanwhile(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	if err := v.WriteAt(ctx, randomBytes(1, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	d.fs.SetHook(func(kind vfs.OpKind, _ string) (err error) {
		if kind == vfs.OpRead {
			once.Do(func() { err = s.DeleteVolume(ctx, "v") })
		}
		return err
	})
	if err := v.ReadAt(ctx, make([]byte, 1<<20), 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("read: %v, want ErrNotFound", err)
	}
}
