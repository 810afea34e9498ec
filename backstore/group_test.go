package backstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// groupOf returns what is to be made of volumes, under their names with a suffix, and the
// records that name it.
func groupOf(of []*Volume, suffix string) (all []NewSnapshot, recs []Record) {
	for _, v := range of {
		n := NewSnapshot{Of: v, Name: v.Name() + suffix}
		rand.Read(n.ID[:])
		all = append(all, n)
		recs = append(recs, Record{Key: fmt.Appendf(nil, "taken/%x", n.ID), Value: []byte(n.Name)})
	}
	return all, recs
}

// TestStore_SnapshotAll: volumes and files, their identities, and what was recorded, at once
// and over a restart.
func TestStore_SnapshotAll(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	f, err := s.CreateFile(ctx, "dir/f")
	must.Succeed(t, err)
	must.Succeed(t, f.Truncate(ctx, 3*sector))
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{1}), 0))
	must.Succeed(t, f.WriteAt(ctx, content([]uint32{2}), 0))
	all, recs := groupOf([]*Volume{v, f, v}, ".1")
	all[2].Name = "another"
	made, err := s.SnapshotAll(ctx, all, recs...)
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{3}), 0))
	must.Succeed(t, f.WriteAt(ctx, content([]uint32{3}), 0))
	if err := made[1].WriteAt(ctx, content([]uint32{4}), 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("writing to the snapshot of a file: %v", err)
	}
	check := func(s *Store) {
		t.Helper()
		for i, want := range []uint32{1, 2, 1} {
			n, err := s.VolumeByID(all[i].ID)
			must.Succeed(t, err)
			got, err := readSectors(n.ReadAt, sector)
			origin, _ := n.Origin()
			if err != nil || got[0] != want || !n.ReadOnly() || n.Name() != all[i].Name || n.IsFile() != (i == 1) || origin != all[i].Of.Name() {
				t.Errorf("%v has %v, %v; read-only %t, of %s", n, got, err, n.ReadOnly(), origin)
			}
			if value, err := s.GetRecord(recs[i].Key); err != nil || string(value) != string(recs[i].Value) {
				t.Errorf("record %d: %q, %v", i, value, err)
			}
		}
		requireSound(t, s)
	}
	overRestart(t, d, s, check)
}

// TestStore_SnapshotAll_Refused: all of a group is made, or nothing of it.
func TestStore_SnapshotAll_Refused(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	gone, err := s.CreateVolume(ctx, "gone", 1<<20)
	must.Succeed(t, err)
	must.Succeed(t, s.Delete(ctx, gone))
	if err := s.Delete(ctx, gone); !errors.Is(err, ErrNotFound) || !gone.Deleted() {
		t.Errorf("a second deletion: %v", err)
	}
	other := newDisk().open(t, 4<<10)
	defer other.Close()
	foreign, err := other.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	_, err = s.CreateVolume(ctx, "taken", 1<<20)
	must.Succeed(t, err)
	ended, end := context.WithCancel(ctx)
	end()
	for _, c := range []struct {
		name string
		ctx  context.Context
		of   []*Volume
		to   []string
		want error
	}{
		{"a name that is taken", ctx, []*Volume{v, v}, []string{"x", "taken"}, ErrExists},
		{"a name twice", ctx, []*Volume{v, v}, []string{"x", "x"}, ErrExists},
		{"no name", ctx, []*Volume{v, v}, []string{"x", ""}, ErrInvalid},
		{"a deleted volume", ctx, []*Volume{v, gone}, []string{"x", "y"}, ErrNotFound},
		{"a volume of another store", ctx, []*Volume{v, foreign}, []string{"x", "y"}, ErrInvalid},
		{"a context that has ended", ended, []*Volume{v}, []string{"x"}, context.Canceled},
	} {
		all, recs := groupOf(c.of, "")
		for i := range all {
			all[i].Name = c.to[i]
		}
		if _, err := s.SnapshotAll(c.ctx, all, recs...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, err := s.Volume("x"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: a part was made: %v", c.name, err)
		}
		if _, err := s.GetRecord(recs[0].Key); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: a record was put: %v", c.name, err)
		}
	}
	requireSound(t, s)
}

// TestStore_SnapshotAll_Together: a writer numbers its writes to volumes in turn. What a
// group has of them is a beginning: no write without all the writes before it.
func TestStore_SnapshotAll_Together(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	var of []*Volume
	for i := range 3 {
		v, err := s.CreateVolume(ctx, fmt.Sprint("v", i), 1<<20)
		must.Succeed(t, err)
		of = append(of, v)
	}
	stop, written := make(chan struct{}), make(chan struct{}, 1)
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := uint32(1); ; n++ {
			if err := of[n%3].WriteAt(ctx, content([]uint32{n}), 0); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case written <- struct{}{}:
			default:
			}
		}
	})
	for round := range 60 {
		<-written // the group is taken while the writer goes on
		all, recs := groupOf(of, fmt.Sprint(".", round))
		made, err := s.SnapshotAll(ctx, all, recs...)
		must.Succeed(t, err)
		var last []uint32
		for _, n := range made {
			got, err := readSectors(n.ReadAt, sector)
			must.Succeed(t, err)
			last = append(last, got[0])
		}
		slices.Sort(last)
		if last[2] >= 3 && (last[1] != last[2]-1 || last[0] != last[2]-2) {
			t.Fatalf("group %d has the writes %v", round, last)
		}
	}
	close(stop)
	writing.Wait()
}

// TestStore_SnapshotAll_PowerCut cuts the power, or ends the process, before each change of
// the disk while groups are made and deleted: no snapshot is found that no record names, the
// first ones of a group are found, and all of it after SnapshotAll has returned.
func TestStore_SnapshotAll_PowerCut(t *testing.T) {
	ctx := context.Background()
	for seed := range sample.Size[uint64](1, 3, 3) {
		rng := mathrand.New(mathrand.NewPCG(seed, 91))
		o := drawOptions(rng)
		o.CapacityBytes = 0
		d := newDisk()
		s, err := Open(ctx, d.options(o))
		must.Succeed(t, err)
		var of []*Volume
		for i := range 3 {
			v, err := s.CreateVolume(ctx, fmt.Sprint("v", i), 1<<20)
			must.Succeed(t, err)
			must.Succeed(t, v.WriteAt(ctx, content([]uint32{uint32(i + 1)}), 0))
			of = append(of, v)
		}
		must.Succeed(t, s.Flush(ctx))
		for round := range 4 {
			suffix := fmt.Sprint(".", round)
			all, recs := groupOf(of, suffix)
			cuts := cutEach(d, rng)
			_, err := s.SnapshotAll(ctx, all, recs...)
			must.Succeed(t, err)
			if rng.IntN(2) == 0 {
				must.Succeed(t, s.Checkpoint(ctx))
			}
			after := d.crash(rng)
			for i, c := range cuts() {
				checkGroup(t, fmt.Sprintf("seed %d, round %d, cut %d", seed, round, i), c.options(o), suffix, 0)
			}
			checkGroup(t, fmt.Sprintf("seed %d, round %d, after it", seed, round), after.options(o), suffix, 3)
			// The caller deletes the snapshot first, and then the record.
			n, err := s.VolumeByID(all[0].ID)
			must.Succeed(t, err)
			cuts = cutEach(d, rng)
			must.Succeed(t, s.Delete(ctx, n))
			must.Succeed(t, s.PutRecords(ctx, Record{Key: recs[0].Key}))
			must.Succeed(t, s.Flush(ctx))
			for i, c := range cuts() {
				checkGroup(t, fmt.Sprintf("seed %d, deletion %d, cut %d", seed, round, i), c.options(o), suffix, 0)
			}
		}
		must.Succeed(t, s.Close())
	}
}

// cutEach makes a crashed copy of a disk before each operation that changes it, until the
// returned function is called.
func cutEach(d *disk, rng *mathrand.Rand) (stop func() []*disk) {
	var cuts []*disk
	rng = mathrand.New(mathrand.NewPCG(rng.Uint64(), rng.Uint64()))
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		d.cutMu.Lock()
		defer d.cutMu.Unlock()
		if kind.Changes() && len(cuts) < 40 {
			cut := d.crash(rng)
			if rng.IntN(2) == 0 {
				cut = &disk{fs: d.fs.ProcessClone()}
			}
			cuts = append(cuts, cut)
		}
		return nil
	})
	return func() []*disk {
		d.fs.SetHook(nil)
		d.cutMu.Lock()
		defer d.cutMu.Unlock()
		return cuts
	}
}

// checkGroup opens a store and compares its snapshots with its records; at least least of the
// group with a suffix have to be there.
func checkGroup(t *testing.T, when string, o Options, suffix string, least int) {
	t.Helper()
	ctx := context.Background()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer s.Close()
	recorded := map[string]bool{}
	must.Succeed(t, s.ScanRecords([]byte("taken/"), func(_, value []byte) error {
		recorded[string(value)] = true
		return nil
	}))
	found := 0
	for _, v := range s.Volumes() {
		if !v.ReadOnly() {
			continue
		}
		if !recorded[v.Name()] {
			t.Errorf("%s: %v has no record", when, v)
		}
		if strings.HasSuffix(v.Name(), suffix) {
			found++
		}
		got, err := readSectors(v.ReadAt, sector)
		if err != nil || got[0] != uint32(v.Name()[1]-'0'+1) {
			t.Errorf("%s: %v has %v, %v", when, v, got, err)
		}
	}
	if found < least {
		t.Errorf("%s: %d of the group, want %d", when, found, least)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("%s: check: %v %v", when, findings, err)
	}
}
