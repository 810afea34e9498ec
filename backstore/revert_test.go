package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// revert gives a volume of a history the content of another one, often of a snapshot.
func (h *history) revert() {
	to, from := h.name(), "c"
	if _, ok := h.now().volumes[from]; !ok {
		from = map[string]string{"a": "b", "b": "a"}[to]
	}
	next := h.now().clone()
	next.volumes[to] = next.volumes[from]
	h.do(fmt.Sprintf("revert %s to %s", to, from), next, func(ctx context.Context) error {
		return h.volume(to).Revert(ctx, h.volume(from))
	})
	h.durable()
}

// TestVolume_Revert: content, size and identity of a volume that is reverted, at once and
// over a restart; the volume that it is reverted to stays as it is.
func TestVolume_Revert(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name         string
		before, then int // sectors of the volume, and of what it is reverted to
	}{
		{"same size", 5 << 11, 5 << 11},
		{"smaller", 5 << 11, 3},
		{"part of a block", 1 << 11, 5<<11 + 3},
		{"level of the map", 64, 5 << 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk()
			s := d.open(t, 4<<10)
			v, err := s.CreateVolume(ctx, "v", int64(c.before)*sector)
			must.Succeed(t, err)
			other, err := s.CreateVolume(ctx, "other", int64(c.then)*sector)
			must.Succeed(t, err)
			must.Succeed(t, v.WriteAt(ctx, content([]uint32{1, 2, 3}), int64(c.before-3)*sector))
			must.Succeed(t, other.WriteAt(ctx, content([]uint32{4, 5, 6}), int64(c.then-3)*sector))
			snapshot, err := s.SnapshotVolume(ctx, "other", "snapshot")
			must.Succeed(t, err)
			id := v.ID()
			must.Succeed(t, v.Revert(ctx, snapshot))
			must.Succeed(t, v.WriteAt(ctx, content([]uint32{7}), 0)) // not to what it shares
			check := func(s *Store) {
				t.Helper()
				for name, first := range map[string]int64{"v": 7, "snapshot": 0} {
					v, err := s.Volume(name)
					must.Succeed(t, err)
					if c.then == 3 && name == "snapshot" {
						first = 4
					}
					head, err := readSectors(v.ReadAt, sector)
					must.Succeed(t, err)
					tail := make([]byte, sector)
					must.Succeed(t, v.ReadAt(ctx, tail, int64(c.then-1)*sector))
					if v.Size() != int64(c.then)*sector || int64(head[0]) != first || values(tail)[0] != 6 || name == "v" && v.ID() != id {
						t.Errorf("%s has %d bytes, the first sector %d and the last %d, identity %x", name, v.Size(), head[0], values(tail)[0], v.ID())
					}
				}
				if n := len(snapshotIDs(s)); n != 0 {
					t.Errorf("%d snapshots are left", n)
				}
				requireSound(t, s)
			}
			overRestart(t, d, s, check)
		})
	}
}

func TestVolume_Revert_Refused(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	snapshot, err := s.SnapshotVolume(ctx, "v", "snapshot")
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{1}), 0))
	if err := snapshot.Revert(ctx, v); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a snapshot: %v", err)
	}
	if err := v.Revert(ctx, v); !errors.Is(err, ErrInvalid) {
		t.Errorf("to itself: %v", err)
	}
	must.Succeed(t, s.DeleteVolume(ctx, "snapshot"))
	if err := v.Revert(ctx, snapshot); !errors.Is(err, ErrNotFound) {
		t.Errorf("to a volume that is deleted: %v", err)
	}
	if got, err := readSectors(v.ReadAt, sector); err != nil || got[0] != 1 {
		t.Errorf("the volume has %v, %v", got, err)
	}
}

// TestVolume_Revert_PowerCut cuts the power before each change of the disk while volumes
// are reverted to larger and smaller ones: each is found as it was before or after.
func TestVolume_Revert_PowerCut(t *testing.T) {
	for seed := range sample.Size[uint64](1, 2, 8) {
		rng := rand.New(rand.NewPCG(seed, 77))
		o := drawOptions(rng)
		o.CapacityBytes = 0
		d := newDisk()
		h := newHistory(t, rng, func() (*Store, error) { return Open(context.Background(), d.options(o)) })
		sizes := []int{3, 64, 5 << 11, 5<<11 + 5}
		for i, n := range sizes {
			name := fmt.Sprint("s", i)
			vals := make([]uint32, n)
			for k := range vals {
				vals[k] = uint32(1000*i + k%77 + 1)
			}
			next := h.now().clone()
			next.volumes[name] = vals
			h.do("create "+name, next, func(ctx context.Context) error {
				v, err := h.store.CreateVolume(ctx, name, int64(n)*sector)
				if err == nil {
					err = v.WriteAt(ctx, content(vals), 0)
				}
				return err
			})
			h.flush()
		}
		for range 6 {
			stop := d.cutSometimes(rng, 1, 40, h)
			from := fmt.Sprint("s", rng.IntN(len(sizes)))
			next := h.now().clone()
			next.volumes["a"] = next.volumes[from]
			h.do("revert a to "+from, next, func(ctx context.Context) error { return h.volume("a").Revert(ctx, h.volume(from)) })
			h.durable()
			cuts := stop()
			if len(cuts) == 0 {
				t.Fatal("the power was not cut")
			}
			for i, c := range cuts {
				if i%sample.Size(6, 1, 1) > 0 {
					continue
				}
				if problem := c.recovers(rng, o, 1); problem != "" {
					h.fatalf("seed %d, cut %d: %s", seed, i, problem)
				}
			}
		}
		h.verify()
		must.Succeed(t, h.store.Close())
	}
}

// TestVolume_Revert_Size: a revert takes as long for a large volume as for a small one.
func TestVolume_Revert_Size(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v, err := s.CreateVolume(ctx, "v", 1<<40)
	must.Succeed(t, err)
	for off := int64(0); off < 1<<40; off += 1 << 34 {
		must.Succeed(t, v.WriteAt(ctx, randomBytes(uint64(off>>34), 64<<10), off))
	}
	snapshot, err := s.SnapshotVolume(ctx, "v", "snapshot")
	must.Succeed(t, err)
	must.Succeed(t, v.Zero(ctx, 0, 1<<40))
	mapped := s.LiveBytes()
	start := time.Now()
	must.Succeed(t, v.Revert(ctx, snapshot))
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a revert of 1 TiB took %v", took)
	}
	if now := s.LiveBytes(); now != mapped {
		t.Errorf("%d bytes live after the revert, %d before", now, mapped)
	}
	if got := make([]byte, 64<<10); v.ReadAt(ctx, got, 63<<34) != nil || string(got) != string(randomBytes(63, 64<<10)) {
		t.Error("the end of the volume is not that of the snapshot")
	}
}

// TestStore_RenameVolume: the volume keeps everything but its name, over a power cut.
func TestStore_RenameVolume(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	v, err := s.CreateVolume(ctx, "old", 1<<20)
	must.Succeed(t, err)
	_, err = s.CreateVolume(ctx, "taken", 1<<20)
	must.Succeed(t, err)
	_, err = s.CreateFile(ctx, "new") // a name space of its own
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{5}), 0))
	for to, want := range map[string]error{"taken": ErrExists, "old": ErrExists, "": ErrInvalid} {
		if err := s.RenameVolume(ctx, "old", to); !errors.Is(err, want) {
			t.Errorf("to %q: %v", to, err)
		}
	}
	if err := s.RenameVolume(ctx, "none", "new"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a volume that does not exist: %v", err)
	}
	must.Succeed(t, s.RenameVolume(ctx, "old", "new"))
	check := func(s *Store) {
		t.Helper()
		if _, err := s.Volume("old"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the old name: %v", err)
		}
		now, err := s.Volume("new")
		must.Succeed(t, err)
		got, err := readSectors(now.ReadAt, sector)
		if err != nil || got[0] != 5 || now.ID() != v.ID() || now.IsFile() {
			t.Errorf("%v has %v, %v, identity %x", now, got, err, now.ID())
		}
	}
	check(s)
	cut := d.crash(rand.New(rand.NewPCG(1, 1)))
	must.Succeed(t, s.Close())
	for _, d := range []*disk{d, cut} {
		s := d.open(t, 4<<10)
		check(s)
		must.Succeed(t, s.Close())
	}
}
