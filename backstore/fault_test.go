package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// maybe is what sectors of a volume may hold when writes can fail: a failed
// write has happened, or not, for each sector of its own.
type maybe struct {
	sure []uint32
	also [][]uint32
}

func (m *maybe) wrote(at int, vals []uint32, err error) {
	for i, v := range vals {
		if err == nil {
			m.sure[at+i], m.also[at+i] = v, nil
		} else {
			m.also[at+i] = append(m.also[at+i], v)
		}
	}
}

// settle says where the volume holds none of what it may hold, and takes what
// it does hold as sure from now on.
func (m *maybe) settle(v *Volume) string {
	p := make([]byte, v.Size())
	if err := v.ReadAt(context.Background(), p, 0); err != nil {
		return err.Error()
	}
	for i, got := range values(p) {
		if got != int64(m.sure[i]) && (got < 0 || !slices.Contains(m.also[i], uint32(got))) {
			return fmt.Sprintf("sector %d holds %d, may hold %d or one of %v", i, got, m.sure[i], m.also[i])
		}
		m.sure[i], m.also[i] = uint32(got), nil
	}
	return ""
}

// TestHostErrors lets the host's file system fail, with a full disk or with I/O
// errors, in bursts: what was acknowledged stays, and when the fault ends the
// store works again without a restart.
func TestHostErrors(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run(fault.Error(), func(t *testing.T) {
			forSeeds(t, sample.Size[uint64](1, 3, 8), func(t *testing.T, seed uint64) { hostErrors(t, seed, fault) })
		})
	}
}

func hostErrors(t *testing.T, seed uint64, fault error) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 3))
	d := newDisk()
	s := d.open(t, 16<<10)
	v, err := s.CreateVolume(ctx, "v", 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	m := &maybe{sure: make([]uint32, 2<<20/sector), also: make([][]uint32, 2<<20/sector)}
	var odds, count atomic.Uint64
	fail := func() error {
		if n := odds.Load(); n > 0 && count.Add(1)%n == 0 {
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
	failed := 0
	for round := range 12 {
		odds.Store(uint64(1 + rng.IntN(4)))
		for range 15 {
			at := rng.IntN(len(m.sure))
			vals := slices.Repeat([]uint32{rng.Uint32()}, min(1+rng.IntN(200), len(m.sure)-at))
			err := v.WriteAt(ctx, content(vals), int64(at)*sector)
			m.wrote(at, vals, err)
			if err == nil && rng.IntN(3) == 0 {
				err = s.Flush(ctx)
			}
			if err == nil && rng.IntN(5) == 0 {
				err = s.Checkpoint(ctx)
			}
			if err != nil {
				failed++
				if !errors.Is(err, fault) {
					t.Fatalf("round %d: a failure that is not the host's: %v", round, err)
				}
				if fault == syscall.ENOSPC && !errors.Is(err, ErrNoSpace) {
					t.Fatalf("round %d: the disk is full, and the error is no ErrNoSpace: %v", round, err)
				}
			}
		}
		odds.Store(0)
		if err := v.WriteAt(ctx, content([]uint32{7}), 0); err != nil {
			t.Fatalf("round %d: write after the fault ended: %v", round, err)
		}
		m.wrote(0, []uint32{7}, nil)
		if err := s.Flush(ctx); err != nil {
			t.Fatalf("round %d: flush after the fault ended: %v", round, err)
		}
		if problem := m.settle(v); problem != "" {
			t.Fatalf("round %d: %s", round, problem)
		}
		crashed := d.crash(rng).open(t, 16<<10)
		cv, err := crashed.Volume("v")
		if err != nil {
			t.Fatal(err)
		}
		if problem := m.settle(cv); problem != "" {
			t.Fatalf("round %d, after a power cut: %s", round, problem)
		}
		if err := crashed.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Fatal("nothing ever failed")
	}
	findings, err := s.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWritersAreToldThatCheckpointsFail: with more changed metadata than may
// wait, a write fails when no checkpoint can be stored; it does not hang.
func TestWritersAreToldThatCheckpointsFail(t *testing.T) {
	const volumeBytes = 64 << 20
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10, CacheBytes: 1 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", volumeBytes)
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpCreate && (strings.HasSuffix(name, ".rows.new") || strings.Contains(name, "/made-")) {
			return syscall.EIO
		}
		return nil
	})
	err = nil
	for off := int64(0); off < volumeBytes && err == nil; off += 1 << 20 {
		err = v.WriteAt(ctx, randomBytes(uint64(off>>20), 1<<20), off)
	}
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("writes while no checkpoint can be stored: %v, want EIO", err)
	}
	d.fs.SetHook(nil)
	if err := s.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(ctx, randomBytes(1, 1<<20), 0); err != nil {
		t.Errorf("write after the disk is whole again: %v", err)
	}
}
