package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
)

// reaped frees everything that was given up. Exclusively: the background could
// be in the middle of a step, with nodes that no list has.
func reaped(t *testing.T, s *Store) {
	t.Helper()
	s.opMu.Lock()
	defer s.opMu.Unlock()
	for more := true; more; {
		var err error
		if more, err = s.parts.forest.Reap(1000); err != nil {
			t.Fatal(err)
		}
	}
}

func physical(t *testing.T, s *Store) int64 {
	t.Helper()
	st, err := s.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st.PhysicalBytes
}

func randomBytes(seed uint64, n int) []byte {
	p := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	key[1] = byte(seed >> 8)
	rand.NewChaCha8(key).Read(p)
	return p
}

// mixed returns a store whose one segment is half dead, and is not appended to
// any more because the store was opened again.
func mixed(t *testing.T, o Options) (s *Store, live int64) {
	t.Helper()
	const size = 8 << 20
	ctx := context.Background()
	d := newDisk()
	s = d.open(t, 16<<10)
	v := createVolume(t, s, "v", size)
	if err := v.WriteAt(ctx, randomBytes(1, size), 0); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 128 << 10 {
		if err := v.Unmap(ctx, off, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	return s, size / 2
}

// TestBackgroundCleaning: dead space comes back without anybody asking for it.
func TestBackgroundCleaning(t *testing.T) {
	t.Parallel()
	s, live := mixed(t, Options{tuning: tuning{spareTime: time.Millisecond}})
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for physical(t, s) > live+live/50 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d bytes are used, %d of them live", physical(t, s), live)
		}
		// What was emptied goes with a checkpoint, of which one is due seldom.
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if findings, err := s.Check(t.Context()); err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
}

// TestCleaningKeepsToItsBudget: with a byte a second, a mebibyte has no hour to
// spare, which the limiter knows at once.
func TestCleaningKeepsToItsBudget(t *testing.T) {
	s, _ := mixed(t, Options{CleanBytesPerSecond: 1})
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	s.cleaner.mu.Lock()
	defer s.cleaner.mu.Unlock()
	err := s.cleaner.cleanSegment(ctx, 1, s.cleaner.budget)
	if err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("cleaning of 4 MiB at a byte a second: %v", err)
	}
	if moved := s.parts.usage.Live(2); moved*BlockLength > cleanBatch {
		t.Errorf("%d bytes were moved, more than one step", moved*BlockLength)
	}
}

// TestClean_Batch: what is moved in one step fits into a segment, whatever the
// lengths of the extents, and of the segment that they are moved out of.
func TestClean_Batch(t *testing.T) {
	const unitBlocks = 16
	for _, segmentBlocks := range []uint32{0, planBlocks + 1, planBlocks + 8, planBlocks + unitBlocks} {
		for blocks := unitBlocks / 2; blocks <= unitBlocks; blocks++ {
			t.Run(fmt.Sprintf("segments of %d, extents of %d blocks", segmentBlocks, blocks), func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				d := newDisk()
				s := d.open(t, unitBlocks*BlockLength)
				const units = 64
				v := createVolume(t, s, "v", units*unitBlocks*BlockLength)
				want := make([]byte, v.Size())
				for i := range units {
					off := i * unitBlocks * BlockLength
					copy(want[off:], randomBytes(uint64(i), blocks*BlockLength))
					if err := v.WriteAt(ctx, want[off:off+blocks*BlockLength], int64(off)); err != nil {
						t.Fatal(err)
					}
				}
				for i := range units / 8 {
					off := i * 8 * unitBlocks * BlockLength
					clear(want[off : off+blocks*BlockLength])
					if err := v.Zero(ctx, int64(off), unitBlocks*BlockLength); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s, err := Open(ctx, d.options(Options{DedupUnit: unitBlocks * BlockLength, tuning: tuning{segmentBlocks: segmentBlocks}}))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.Clean(ctx); err != nil {
					t.Fatal(err)
				}
				if v, err = s.Volume("v"); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(want))
				if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("other data after cleaning, or %v", err)
				}
			})
		}
	}
}

// TestReap_Retry: nodes that were dropped while no checkpoint could be stored are
// freed once one can, without an operation that asks for it.
func TestReap_Retry(t *testing.T) {
	t.Parallel()
	const volumeBytes = 64 << 20
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10, CacheBytes: 1 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", volumeBytes)
	if err := v.WriteAt(ctx, randomBytes(1, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpRename && strings.HasSuffix(name, ".rows.new") {
			return syscall.ENOSPC
		}
		return nil
	})
	err = nil
	for off := int64(4 << 20); off < volumeBytes && err == nil; off += 1 << 20 {
		err = v.WriteAt(ctx, randomBytes(uint64(off>>20), 1<<20), off)
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("writes while no checkpoint can be stored: %v, want ErrNoSpace", err)
	}
	// The background meets the same error with what is dropped here.
	s.opMu.RLock()
	v.mu.Lock()
	err = s.parts.forest.Clear(&v.root, 0, volumeBytes/BlockLength)
	v.mu.Unlock()
	s.opMu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.reapOnce(ctx); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("reap while no checkpoint can be stored: %v, want ErrNoSpace", err)
	}
	d.fs.SetHook(nil)
	waitFor(t, "the store is empty", func() bool { return s.LiveBytes() == 0 })
}

// waitFor waits until the background has made a condition true.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// TestSegmentsAreUsedAgain: data that is written over and over stays in a few
// files, which are those that a checkpoint found nothing live in.
func TestSegmentsAreUsedAgain(t *testing.T) {
	const size = 4 << 20
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10, tuning: tuning{segmentBlocks: planBlocks + 1}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", size)
	var created int
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpCreate && strings.HasSuffix(name, ".seg") {
			created++
		}
		return nil
	})
	for round := range uint64(10) {
		if err := v.WriteAt(ctx, randomBytes(round, size), 0); err != nil {
			t.Fatal(err)
		}
		reaped(t, s)
		if err := s.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		want, got := randomBytes(round, size), make([]byte, size)
		if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: other data, or %v", round, err)
		}
	}
	if segments := int(s.PhysicalBytes() / size); created > 3*size>>20 || segments > 3 {
		t.Errorf("%d files were made, %d times the data is there", created, segments)
	}
	if err := s.Clean(ctx); err != nil {
		t.Fatal(err)
	}
	if physical := s.PhysicalBytes(); physical > size+size/50 {
		t.Errorf("%d bytes are left of %d", physical, size)
	}
}

// TestSegmentsThatDieAreNotCleaned: what is about to be written over is not moved
// before.
func TestSegmentsThatDieAreNotCleaned(t *testing.T) {
	const size = 16000
	now := time.Now()
	var l looks
	for i, step := range []struct {
		live  int64
		dying bool
	}{{14000, false}, {13000, false}, {10900, true}, {10900, false}, {8800, true}, {8000, false}, {0, true}} {
		sp := segmentSpace{id: 1, live: step.live, dead: size - step.live}
		if l.dying(sp) != step.dying {
			t.Errorf("step %d, %d live: dying is %v", i, step.live, !step.dying)
		}
		now = now.Add(cleanPeriod)
		l.look([]segmentSpace{sp}, now)
	}
	l.look(nil, now.Add(cleanPeriod/2))
	if len(l.live) != 1 {
		t.Error("a look too soon after the last one")
	}
}
