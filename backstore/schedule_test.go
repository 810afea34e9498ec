package backstore

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"odx/backstore/vfs"
	"odx/blockdev"
)

// TestCheckpointIsDue: what opening the store would do again is bounded by
// length, by number and by the memory it takes.
func TestCheckpointIsDue(t *testing.T) {
	ctx := context.Background()
	put := func(s *Store, records, bytes int) error {
		for range records {
			if err := s.PutRecords(ctx, Record{Key: []byte("k"), Value: make([]byte, bytes)}); err != nil {
				return err
			}
		}
		return nil
	}
	for name, tt := range map[string]struct {
		cache int64
		write func(t *testing.T, s *Store) error
	}{
		"long records": {1 << 30, func(_ *testing.T, s *Store) error { return put(s, checkpointBytes>>15+1, 1<<15) }},
		"many records": {1 << 30, func(_ *testing.T, s *Store) error { return put(s, checkpointRecords+1, 1) }},
		"much changed metadata": {1 << 20, func(t *testing.T, s *Store) error {
			v := createVolume(t, s, "v", 1<<30)
			for i := range int64(40) {
				if err := v.WriteAt(ctx, randomBytes(1, BlockLength), i<<21); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s, err := Open(ctx, d.options(Options{CacheBytes: tt.cache}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			// Hold the store's own checkpoints off.
			s.checkpoints.running.Lock()
			if s.pace.due() {
				t.Error("due for an empty store")
			}
			err = tt.write(t, s)
			if err == nil && !s.pace.due() {
				t.Error("not due")
			}
			s.checkpoints.running.Unlock()
			if err = errors.Join(err, s.Checkpoint(ctx)); err != nil {
				t.Fatal(err)
			}
			if s.pace.due() {
				t.Error("still due after a checkpoint")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(ctx, d.options(Options{CacheBytes: tt.cache}))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if again.pace.due() {
				t.Error("due after a restart")
			}
		})
	}
}

// TestUnsyncedIsBounded: writers that never flush wait for the disk before there
// is much that it does not have, and opening reads no more after a crash.
func TestUnsyncedIsBounded(t *testing.T) {
	const bound = 4 << 20
	d := newDisk()
	s, err := Open(t.Context(), d.options(Options{tuning: tuning{writeBackBytes: bound / 4}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", 64<<20)
	release := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(release) })
	defer goOn() // or Close would wait for it
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync && strings.HasSuffix(name, ".seg") {
			<-release
		}
		return nil
	})
	ended := make(chan error)
	go func() {
		var err error
		for i := 0; err == nil && i < 64; i++ {
			err = v.WriteAt(context.Background(), randomBytes(uint64(i), 1<<20), int64(i)<<20)
		}
		ended <- err
	}()
	for s.parts.segments.Unsynced() <= bound { // the writer waits then
		runtime.Gosched()
	}
	left := &disk{fs: d.fs.ProcessClone()}
	var read atomic.Int64
	left.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpRead && strings.HasSuffix(name, ".seg") {
			read.Add(1)
		}
		return nil
	})
	again, err := Open(t.Context(), left.options(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	// Each write is one run of new extents, and one header in a segment.
	if n := read.Load(); n > bound>>20+4 {
		t.Errorf("opening read %d times 1 MiB at most, for a bound of %d bytes", n, bound)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if n := s.parts.segments.Unsynced(); n > bound+2<<20 {
		t.Errorf("%d bytes are not synced, the bound is %d", n, bound)
	}
	goOn()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestUnsyncedIsBounded_Urgent: writes whose time ends go on while the disk stalls, until
// they have left their part unsynced; then they fail.
func TestUnsyncedIsBounded_Urgent(t *testing.T) {
	const bound, piece = 4 << 20, 64 << 10
	d := newDisk()
	s, err := Open(t.Context(), d.options(Options{tuning: tuning{writeBackBytes: bound / 4}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", 64<<20)
	release := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(release) })
	syncing := make(chan struct{})
	begun := sync.OnceFunc(func() { close(syncing) })
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync && strings.HasSuffix(name, ".seg") {
			begun()
			<-release
		}
		return nil
	})
	// What leads a sync waits for the disk, whatever its time: no write is to do that.
	if err := v.WriteAt(t.Context(), randomBytes(0, piece), 0); err != nil {
		t.Fatal(err)
	}
	var flushing sync.WaitGroup
	flushing.Go(func() {
		if err := v.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
	<-syncing
	defer flushing.Wait()
	defer goOn()
	urgent := 0
	for at := int64(piece); at < 3*bound; at += piece {
		before := s.parts.segments.Unsynced()
		ctx, cancel := context.WithTimeout(t.Context(), 2*blockdev.Grace)
		err := v.WriteAt(ctx, randomBytes(uint64(at/piece), piece), at)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded) && before > bound+bound/urgentPart:
			if urgent == 0 {
				t.Error("no write whose time ended went on")
			}
			return
		case errors.Is(err, context.DeadlineExceeded): // this machine is slow
		case err != nil:
			t.Fatal(err)
		case before > bound+bound/urgentPart:
			t.Fatalf("a write went on with %d bytes unsynced, the bound is %d and a sixteenth", before, bound)
		case before > bound:
			urgent++
		}
	}
	t.Errorf("%d bytes are unsynced, and no write failed", s.parts.segments.Unsynced())
}

// TestUrgentCopy: while changes wait for a checkpoint, a copy whose time ends does a
// small step, until there is as much changed metadata as there can be.
func TestUrgentCopy(t *testing.T) {
	const size = 1 << 30
	d := newDisk()
	s, err := Open(t.Context(), d.options(Options{CacheBytes: 4 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	src, dst := createVolume(t, s, "src", size), createVolume(t, s, "dst", size+BlockLength)
	for off := int64(0); off < size; off += 1 << 20 {
		if err := src.WriteAt(t.Context(), randomBytes(1, BlockLength), off); err != nil {
			t.Fatal(err)
		}
	}
	n, err := src.Snapshot(t.Context(), []Range{{Length: size}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release()
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkpoints.running.Lock() // no checkpoint ends
	defer s.checkpoints.running.Unlock()
	done := int64(0)
	for !s.pace.behind() {
		n, err := dst.Map(t.Context(), BlockLength+done, n, done, 2<<20)
		if err != nil {
			t.Fatal(err)
		}
		done += n
	}
	urgent := 0
	for tries := 0; ; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*blockdev.Grace)
		n, err := dst.Map(ctx, BlockLength+done, n, done, size-done)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && n == 0 {
			if s.pace.stuck() {
				break
			}
			if tries < 100 {
				continue // this machine is slow
			}
		}
		if err != nil || n == 0 || n > 2<<20 {
			t.Fatalf("%d bytes, %v, want at most one leaf", n, err)
		}
		done += n
		urgent++
	}
	if urgent == 0 {
		t.Error("a copy did nothing, though there was room for its changes")
	}
	if limit := s.space.dirtyLimit(); s.parts.dirty() > limit+limit/urgentPart {
		t.Errorf("%d bytes of metadata were changed, the limit is %d", s.parts.dirty(), limit)
	}
}
