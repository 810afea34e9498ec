package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// versioned is the content of version n of a range: every sector is another one,
// so that a part of another version can be told.
func versioned(n, sectors int) []byte {
	vals := make([]uint32, sectors)
	for i := range vals {
		vals[i] = uint32(n)<<12 | uint32(i)
	}
	return content(vals)
}

// versionOf returns the version that the whole of p has; zeros are version 0.
func versionOf(p []byte) (int, error) {
	vals := values(p)
	version := vals[0] >> 12
	for i, v := range vals {
		if v != version<<12|int64(i) && (v != 0 || version != 0) {
			return 0, fmt.Errorf("sector 0 has version %d, sector %d has %x", version, i, v)
		}
	}
	return int(version), nil
}

func TestWriteAtomicRefuses(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	ctx := context.Background()
	v, err := s.CreateVolume(ctx, "v", 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off    int64
		length int
		want   error
	}{
		{512, BlockLength, ErrInvalid}, {0, 512, ErrInvalid}, {0, MaximumAtomicWrite + BlockLength, ErrInvalid},
		{8 << 20, BlockLength, ErrRange}, {8<<20 - BlockLength, 2 * BlockLength, ErrRange},
		{8 << 20, 0, nil}, {0, MaximumAtomicWrite, nil},
	} {
		if err := v.WriteAtomic(ctx, make([]byte, c.length), c.off); !errors.Is(err, c.want) {
			t.Errorf("%d bytes at %d: %v, want %v", c.length, c.off, err, c.want)
		}
	}
}

// Readers of every length and place see one version of what is written
// atomically, though they look the map up in more than one step.
func TestAtomicWritesAreReadAsAWhole(t *testing.T) {
	t.Parallel()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	const at, size = 2 << 20, 8 << 20
	v, err := s.CreateVolume(ctx, "v", size)
	if err != nil {
		t.Fatal(err)
	}
	rounds := sample.Size(30, 100, 100)
	var readers sync.WaitGroup
	for reader := range 3 {
		readers.Go(func() {
			p := make([]byte, size)
			for ctx.Err() == nil {
				// Batches of the look-up begin at other places for each reader.
				off := int64(reader) * 37 * BlockLength
				if err := v.ReadAt(context.Background(), p[off:], off); err != nil {
					t.Error(err)
					return
				}
				if _, err := versionOf(p[at:][:MaximumAtomicWrite]); err != nil {
					t.Errorf("read from byte %d on: %v", off, err)
					return
				}
			}
		})
	}
	for n := range rounds {
		if err := v.WriteAtomic(ctx, versioned(n+1, MaximumAtomicWrite/sector), at); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	readers.Wait()
}

// A power cut leaves an atomic write whole or leaves nothing of it, also where
// its data fills several segments' worth of appends.
func TestPowerCutsLeaveAtomicWritesWhole(t *testing.T) {
	forSeeds(t, 3, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d := newDisk()
		s := d.open(t, 64<<10)
		ctx := context.Background()
		v, err := s.CreateVolume(ctx, "v", 2<<20)
		if err == nil {
			err = s.Flush(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		type cut struct {
			disk           *disk
			durable, begun int
		}
		var mu sync.Mutex // guards what follows
		var cuts []cut
		durable, begun := 0, 0
		d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			if kind.Changes() && rng.IntN(4) == 0 && len(cuts) < 20 {
				cuts = append(cuts, cut{d.crash(rng), durable, begun})
			}
			return nil
		})
		for n := 1; n <= 20; n++ {
			mu.Lock()
			begun = n
			flush := rng.IntN(2) == 0
			mu.Unlock()
			if err := v.WriteAtomic(ctx, versioned(n, MaximumAtomicWrite/sector), 512<<10); err != nil {
				t.Fatal(err)
			}
			if flush {
				if err := s.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				durable = n
				mu.Unlock()
			}
		}
		d.fs.SetHook(nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(cuts) == 0 {
			t.Fatal("the power was never cut")
		}
		for _, c := range cuts {
			s := c.disk.open(t, 64<<10)
			v, err := s.Volume("v")
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, MaximumAtomicWrite)
			if err := v.ReadAt(ctx, p, 512<<10); err != nil {
				t.Fatal(err)
			}
			got, err := versionOf(p)
			if err != nil || got < c.durable || got > c.begun {
				t.Errorf("after a power cut: version %d, %v; want one from %d to %d, whole", got, err, c.durable, c.begun)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Update is one step: increments by many are all counted.
func TestUpdateLosesNothing(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	ctx := context.Background()
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const writers, rounds = 4, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				err := v.Update(ctx, 4000, 200, func(data []byte) {
					data[0]++
					data[199]++
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	p := make([]byte, 200)
	if err := v.ReadAt(ctx, p, 4000); err != nil {
		t.Fatal(err)
	}
	if want := byte(writers * rounds % 256); p[0] != want || p[199] != want || p[1] != 0 {
		t.Errorf("counted %d and %d, want %d", p[0], p[199], want)
	}
	if err := v.Update(ctx, 1, MaximumAtomicWrite, func([]byte) {}); !errors.Is(err, ErrRange) {
		t.Errorf("beyond the end: %v", err)
	}
}
