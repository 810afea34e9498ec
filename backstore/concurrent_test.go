package backstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// versions are the writes that sectors may hold: from the last that was flushed,
// or written out where only the process ends, to the last that was begun. Version n has the content n, in every sector, so
// that writers meet each other's duplicates.
type versions struct {
	mu      sync.Mutex
	durable []uint32
	written []uint32
	begun   []uint32
}

// concurrently is a store under load by writers that own interleaved units of
// a volume, while checkpoints, snapshots and copies go on.
type concurrently struct {
	tb       testing.TB
	disk     *disk
	store    *Store
	volume   *Volume
	unit     int // sectors that a writer writes at once
	versions versions
	writers  sync.WaitGroup
	stop     chan struct{}
	others   sync.WaitGroup
}

const (
	concurrentWriters = 4
	concurrentUnits   = 64
)

func (c *concurrently) fail(err error) {
	if err != nil {
		c.tb.Error(err)
	}
}

// write makes rounds of writes to the units that writer w owns, each followed
// now and then by a flush.
func (c *concurrently) write(w, rounds int) {
	rng := rand.New(rand.NewPCG(uint64(w), uint64(c.unit)))
	ctx := context.Background()
	for range rounds {
		u := rng.IntN(concurrentUnits/concurrentWriters)*concurrentWriters + w
		c.versions.mu.Lock()
		c.versions.begun[u]++
		version := c.versions.begun[u]
		c.versions.mu.Unlock()
		data := content(slices.Repeat([]uint32{version}, c.unit))
		c.fail(c.volume.WriteAt(ctx, data, int64(u*c.unit)*sector))
		switch rng.IntN(4) {
		case 0:
			c.fail(c.store.Flush(ctx))
			c.versions.reached(w, c.versions.durable, c.versions.written)
		case 1:
			c.fail(c.store.WriteOut(ctx))
			c.versions.reached(w, c.versions.written)
		}
	}
}

// reached notes how far writer w, which has ended what it had begun, has come.
func (v *versions) reached(w int, what ...[]uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for u := w; u < concurrentUnits; u += concurrentWriters {
		for _, to := range what {
			to[u] = v.begun[u]
		}
	}
}

// until runs fn again and again until the writers have ended.
func (c *concurrently) until(fn func(ctx context.Context) error) {
	c.others.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			default:
				c.fail(fn(context.Background()))
			}
		}
	})
}

// fork copies the written part behind itself by a snapshot that is deleted
// while it is copied from.
func (c *concurrently) fork(ctx context.Context) error {
	length := int64(concurrentUnits*c.unit) * sector
	n, err := c.volume.Snapshot(ctx, []Range{{Length: length}}, nil)
	if err != nil {
		return err
	}
	defer n.Release()
	if err := c.store.DeleteSnapshot(ctx, n.ID()); err != nil {
		return err
	}
	_, err = c.volume.Map(ctx, length, n, 0, length)
	return err
}

// found says what is wrong with a store that was opened after a power cut.
func (v *versions) found(s *Store, unit int) string {
	volume, err := s.Volume("v")
	if err != nil {
		return err.Error()
	}
	p := make([]byte, concurrentUnits*unit*sector)
	if err := volume.ReadAt(context.Background(), p, 0); err != nil {
		return err.Error()
	}
	for i, got := range values(p) {
		u := i / unit
		if got < int64(v.durable[u]) || got > int64(v.begun[u]) {
			return fmt.Sprintf("sector %d holds version %d, kept was %d, begun %d", i, got, v.durable[u], v.begun[u])
		}
	}
	findings, err := s.Check(context.Background())
	if err != nil || len(findings) > 0 {
		return fmt.Sprintf("check: %v %v", findings, err)
	}
	return ""
}

type concurrentCrash struct {
	disk     *disk
	versions *versions
}

// cut makes crashed copies of the disk while the load runs.
func (c *concurrently) cut(rng *rand.Rand, limit int) *[]concurrentCrash {
	var crashes []concurrentCrash
	c.disk.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		c.versions.mu.Lock()
		defer c.versions.mu.Unlock()
		if kind.Changes() && len(crashes) < limit && rng.IntN(60) == 0 {
			left, kept := c.disk.crash(rng), c.versions.durable
			if len(crashes)%2 == 1 { // the kernel lives
				left, kept = &disk{fs: c.disk.fs.ProcessClone()}, c.versions.written
			}
			crashes = append(crashes, concurrentCrash{left, &versions{
				durable: slices.Clone(kept), begun: slices.Clone(c.versions.begun),
			}})
		}
		return nil
	})
	return &crashes
}

func TestPowerCutsUnderLoad(t *testing.T) {
	for _, unit := range []int{1, 8, 24, 96} {
		t.Run(fmt.Sprintf("%d sectors", unit), func(t *testing.T) {
			d := newDisk()
			c := &concurrently{tb: t, disk: d, store: d.open(t, 16<<10), unit: unit, stop: make(chan struct{})}
			for _, v := range []*[]uint32{&c.versions.durable, &c.versions.written, &c.versions.begun} {
				*v = make([]uint32, concurrentUnits)
			}
			v, err := c.store.CreateVolume(context.Background(), "v", 8<<20)
			if err != nil {
				t.Fatal(err)
			}
			c.volume = v
			crashes := c.cut(rand.New(rand.NewPCG(7, uint64(unit))), sample.Size(4, 12, 12))
			c.until(c.fork)
			c.until(c.store.Checkpoint)
			c.until(c.store.Clean)
			for w := range concurrentWriters {
				c.writers.Go(func() { c.write(w, sample.Size(50, 150, 150)) })
			}
			c.writers.Wait()
			close(c.stop)
			c.others.Wait()
			d.fs.SetHook(nil)
			if len(*crashes) == 0 {
				t.Fatal("the power was never cut")
			}
			for i, crash := range *crashes {
				s := crash.disk.open(t, 16<<10)
				if problem := crash.versions.found(s, unit); problem != "" {
					t.Fatalf("crash %d (of the process: %t): %s", i, i%2 == 1, problem)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			final := &versions{durable: c.versions.begun, begun: c.versions.begun}
			if problem := final.found(c.store, unit); problem != "" {
				t.Fatal(problem)
			}
			if err := c.store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
