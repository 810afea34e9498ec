package backstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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

func TestVolumesRefuseWhatNoStoreCanDo(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	tests := []struct {
		name string
		op   func() error
		want error
	}{
		{"no name", func() error { _, err := s.CreateVolume(ctx, "", 4096); return err }, ErrInvalid},
		{"control character in the name", func() error { _, err := s.CreateVolume(ctx, "a\nb", 4096); return err }, ErrInvalid},
		{"long name", func() error { _, err := s.CreateVolume(ctx, strings.Repeat("x", 256), 4096); return err }, ErrInvalid},
		{"no size", func() error { _, err := s.CreateVolume(ctx, "w", 0); return err }, ErrInvalid},
		{"size within a sector", func() error { _, err := s.CreateVolume(ctx, "w", 4097); return err }, ErrInvalid},
		{"size beyond the limit", func() error { _, err := s.CreateVolume(ctx, "w", MaxVolumeBytes+512); return err }, ErrInvalid},
		{"name taken", func() error { _, err := s.CreateVolume(ctx, "v", 4096); return err }, ErrExists},
		{"no such volume", func() error { return s.DeleteVolume(ctx, "w") }, ErrNotFound},
		{"no such snapshot", func() error { return s.DeleteSnapshot(ctx, 99) }, ErrNotFound},
		{"no such record", func() error { _, err := s.GetRecord([]byte("k")); return err }, ErrNotFound},
		{"shrink", func() error { return v.Grow(ctx, 512) }, ErrInvalid},
		{"read beyond the end", func() error { return v.ReadAt(ctx, make([]byte, 2), 1<<20-1) }, ErrRange},
		{"read before the start", func() error { return v.ReadAt(ctx, make([]byte, 2), -1) }, ErrRange},
		{"write beyond the end", func() error { return v.WriteAt(ctx, make([]byte, 1<<20+512), 0) }, ErrRange},
		{"zero beyond the end", func() error { return v.Zero(ctx, 512, 1<<20) }, ErrRange},
		{"length that overflows", func() error { return v.Zero(ctx, 512, 1<<63-1) }, ErrRange},
		{"snapshot beyond the end", func() error { _, err := v.Snapshot(ctx, []Range{{Offset: 1 << 20, Length: 1}}, nil); return err }, ErrRange},
	}
	for _, tt := range tests {
		if err := tt.op(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
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

// TestSecondImageAddsNothing: neither data nor, to speak of, metadata.
func TestSecondImageAddsNothing(t *testing.T) {
	const size = 32 << 20
	ctx := context.Background()
	for _, unit := range []int{4 << 10, 16 << 10} {
		// An index with far more room than the images have fingerprints: which
		// of these share a bucket is chance, and a full bucket forgets.
		s, err := Open(ctx, newDisk().options(Options{DedupUnit: unit, CacheBytes: 64 << 20}))
		if err != nil {
			t.Fatal(err)
		}
		image := randomBytes(1, size)
		var used [2]int64
		for i, name := range []string{"first", "second"} {
			if err := createVolume(t, s, name, size).WriteAt(ctx, image, 0); err != nil {
				t.Fatal(err)
			}
			m, err := s.Metadata(ctx)
			if err != nil {
				t.Fatal(err)
			}
			used[i] = m.Bytes + physical(t, s)
		}
		st, err := s.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.LogicalBytes != 2*size || st.LiveBytes != size || st.DedupRatio != 2 {
			t.Errorf("two equal images of %d bytes: logical %d, live %d, ratio %g", size, st.LogicalBytes, st.LiveBytes, st.DedupRatio)
		}
		if extra := used[1] - used[0]; extra > size/100 {
			t.Errorf("unit %d: the second image added %d bytes", unit, extra)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDuplicatesAreStoredWithDedupOff(t *testing.T) {
	const size = 1 << 20
	ctx := context.Background()
	o := newDisk().options(Options{DedupUnit: 16 << 10})
	o.StoreDuplicates = true
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image := randomBytes(1, size)
	for _, name := range []string{"first", "second"} {
		if err := createVolume(t, s, name, size).WriteAt(ctx, image, 0); err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.LiveBytes != 2*size {
		t.Errorf("%d bytes are live, want both copies", st.LiveBytes)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

func TestDuplicatesAreFoundAfterRestart(t *testing.T) {
	const size = 8 << 20
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	image := randomBytes(1, size)
	if err := createVolume(t, s, "first", size).WriteAt(ctx, image, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, 16<<10)
	defer s.Close()
	<-s.indexLoaded
	if err := createVolume(t, s, "second", size).WriteAt(ctx, image, 0); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.LiveBytes != size {
		t.Errorf("%d bytes are live, want %d", st.LiveBytes, size)
	}
}

func TestZerosTakeNoSpace(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(ctx, randomBytes(1, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(ctx, make([]byte, 2<<20), 0); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.LogicalBytes != 0 || st.LiveBytes != 0 {
		t.Errorf("logical %d, live %d bytes after zeros were written", st.LogicalBytes, st.LiveBytes)
	}
}

func TestDamagedBlockIsReportedNeverReturned(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 1<<20)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	damage(t, d, data[5*BlockLength:][:16])
	var ce *CorruptError
	p := make([]byte, 64<<10)
	if err := v.ReadAt(ctx, p, 8192); !errors.As(err, &ce) || !errors.Is(err, ErrCorrupt) || ce.Offset != 5*BlockLength {
		t.Errorf("read of a damaged block: %v", err)
	}
	for _, off := range []int64{0, 6 * BlockLength} {
		if err := v.ReadAt(ctx, p[:BlockLength], off); err != nil || !bytes.Equal(p[:BlockLength], data[off:][:BlockLength]) {
			t.Errorf("its neighbour at byte %d: %v", off, err)
		}
	}
	// Less than a block cannot be merged with what cannot be read; a whole
	// block replaces it.
	if err := v.WriteAt(ctx, p[:512], 5*BlockLength); !errors.Is(err, ErrCorrupt) {
		t.Errorf("write of a part of it: %v", err)
	}
	if err := v.WriteAt(ctx, data[:BlockLength], 5*BlockLength); err != nil {
		t.Error(err)
	}
	if err := v.ReadAt(ctx, p[:BlockLength], 5*BlockLength); err != nil {
		t.Error(err)
	}
}

// damage flips a byte of the stored data that begins like this.
func damage(t *testing.T, d *disk, like []byte) {
	t.Helper()
	names, err := d.fs.List("/store/" + segmentDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := d.fs.Open(filepath.Join("/store", segmentDir, name))
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

func TestFullStoreFailsWritesOnly(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	o := d.options(Options{DedupUnit: 16 << 10})
	o.CapacityBytes = 4 << 20
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", 16<<20)
	if err := v.WriteAt(ctx, randomBytes(1, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(ctx, randomBytes(2, 16<<10), 8<<20); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write to a full store: %v, want ErrNoSpace", err)
	}
	if err := v.ReadAt(ctx, make([]byte, 1<<20), 0); err != nil {
		t.Error(err)
	}
	if err := v.WriteAt(ctx, randomBytes(1, 4<<20), 4<<20); err != nil {
		t.Errorf("duplicates need no space: %v", err)
	}
	if err := v.Unmap(ctx, 0, 8<<20); err != nil {
		t.Fatal(err)
	}
	reaped(t, s)
	if err := v.WriteAt(ctx, randomBytes(2, 16<<10), 8<<20); err != nil {
		t.Errorf("write after unmap: %v", err)
	}
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
	s.measureSpace()
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
	s.measureSpace()
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

func TestGrownPartReadsAsZeros(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 1<<20)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Grow(ctx, 3<<30); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(ctx, data, 3<<30-1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, 16<<10)
	defer s.Close()
	v, err := s.Volume("v")
	if err != nil || v.Size() != 3<<30 {
		t.Fatal(err, v.Size())
	}
	p := make([]byte, 1<<20)
	for _, tt := range []struct {
		off  int64
		want []byte
	}{{0, data}, {1 << 20, make([]byte, 1<<20)}, {3<<30 - 1<<20, data}} {
		if err := v.ReadAt(ctx, p, tt.off); err != nil || !bytes.Equal(p, tt.want) {
			t.Errorf("wrong data at byte %d: %v", tt.off, err)
		}
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
