package backstore

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// Whatever changes a watched block tells, once, and nothing else does.
func TestWatchTellsOfTheFirstChange(t *testing.T) {
	ctx := context.Background()
	const size = 8 << 20
	for _, tc := range []struct {
		name   string
		change func(s *Store, v *Volume) error
		told   bool
	}{
		{"write inside", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(4096, 1), 8192) }, true},
		{"write of part of a block", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(512, 1), 8192+512) }, true},
		{"write over its first byte", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(8192, 1), 0) }, true},
		{"write into the block of its last byte", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(4096, 1), 12288) }, true},
		{"large write that ends in it", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(3<<20, 1), 2<<20) }, true},
		{"write before it", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(4096, 1), 0) }, false},
		{"write behind it", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(4096, 1), 16384) }, false},
		{"write between its ranges", func(_ *Store, v *Volume) error { return v.WriteAt(ctx, filled(1<<20, 1), 1<<20) }, false},
		{"unmap", func(_ *Store, v *Volume) error { return v.Unmap(ctx, 0, size) }, true},
		{"unmap elsewhere", func(_ *Store, v *Volume) error { return v.Unmap(ctx, 5<<20, 1<<20) }, false},
		{"compare and write", func(_ *Store, v *Volume) error {
			_, err := v.CompareAndWrite(ctx, make([]byte, 512), filled(512, 1), 8192)
			return err
		}, true},
		{"map", func(_ *Store, v *Volume) error {
			n, err := v.Snapshot(ctx, []Range{{Offset: 5 << 20, Length: 1 << 20}}, nil)
			if err != nil {
				return err
			}
			defer n.Release()
			_, err = v.Map(ctx, 0, n, 0, 1<<20)
			return err
		}, true},
		{"deletion of the volume", func(s *Store, v *Volume) error { return s.DeleteVolume(ctx, v.Name()) }, true},
		{"growth", func(_ *Store, v *Volume) error { return v.Grow(ctx, 2*size) }, false},
		{"reading", func(_ *Store, v *Volume) error { return v.ReadAt(ctx, make([]byte, size), 0) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newDisk().open(t, 4<<10)
			defer s.Close()
			v := createVolume(t, s, "v", size)
			ranges := []Range{{Offset: 4096 + 512, Length: 8192}, {Offset: 4 << 20, Length: 4096}}
			calls := 0
			w, err := v.Watch(ctx, ranges, nil, func(context.Context) error { calls++; return nil })
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := tc.change(s, v); err != nil && calls == 0 {
					t.Fatal(err)
				}
			}
			want := 0
			if tc.told {
				want = 1
			}
			if calls != want {
				t.Errorf("told %d times, want %d", calls, want)
			}
			if n, err := w.Snapshot(ctx, ranges, nil); tc.told != (errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)) {
				t.Errorf("snapshot: %v", err)
			} else if err == nil {
				n.Release()
			}
			if tc.told == (v.watched.list.Load() != nil) {
				t.Error("a watch that has told is still looked at, or one that has not is not")
			}
			w.Stop()
			if v.watched.list.Load() != nil {
				t.Error("a watch that was stopped is still looked at")
			}
		})
	}
}

// A change waits for the watch's function and fails with it, and what the
// function stores is there before the change.
func TestChangeFailsWithItsWatch(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	broken := errors.New("broken")
	fail := broken
	key := []byte("promise")
	if _, err := v.Watch(ctx, []Range{{Offset: 0, Length: 4096}}, []Record{{Key: key, Value: []byte("kept")}}, func(ctx context.Context) error {
		if fail != nil {
			return fail
		}
		p := make([]byte, 1)
		if err := v.ReadAt(ctx, p, 0); err != nil || p[0] != 0 {
			t.Errorf("the change came first: %d, %v", p[0], err)
		}
		return s.PutRecords(ctx, Record{Key: key, Value: []byte("ended")})
	}); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return v.WriteAt(ctx, filled(4096, 1), 0) },
		func() error { return v.Unmap(ctx, 0, 4096) },
		func() error { return s.DeleteVolume(ctx, "v") },
	} {
		if err := change(); !errors.Is(err, broken) {
			t.Errorf("%v, want the watch's error", err)
		}
	}
	if value, _ := s.GetRecord(key); string(value) != "kept" {
		t.Errorf("record %q", value)
	}
	fail = nil
	if err := v.WriteAt(ctx, filled(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	if value, _ := s.GetRecord(key); string(value) != "ended" {
		t.Errorf("record %q", value)
	}
}

// While writers write, a snapshot of a watch never holds what was written after
// the watch began.
func TestWatchSnapshotsNeverSeeAChange(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	var stop atomic.Bool
	var writers sync.WaitGroup
	for i := range 3 {
		writers.Go(func() {
			for n := byte(1); !stop.Load(); n++ {
				if err := v.WriteAt(ctx, filled(8192, n*3+byte(i)), 4096); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	ranges := []Range{{Offset: 4096, Length: 8192}}
	taken := 0
	for range 300 {
		var ended atomic.Bool
		w, err := v.Watch(ctx, ranges, nil, func(context.Context) error { ended.Store(true); return nil })
		if err != nil {
			t.Fatal(err)
		}
		var first []byte
		for {
			n, err := w.Snapshot(ctx, ranges, nil)
			if errors.Is(err, ErrChanged) {
				if !ended.Load() {
					t.Fatal("changed before it was told")
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			taken++
			p := make([]byte, 8192)
			err = n.ReadAt(ctx, p, 0)
			if derr := s.DeleteSnapshot(ctx, n.ID()); err != nil || derr != nil {
				t.Fatal(err, derr)
			}
			n.Release()
			if first == nil {
				first = p
			} else if string(first) != string(p) {
				t.Fatal("two snapshots of one watch differ")
			}
		}
	}
	stop.Store(true)
	writers.Wait()
	if taken == 0 {
		t.Error("no snapshot was taken in time")
	}
}

func TestWatchesAreBounded(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	var all []*Watch
	for range MaxWatches {
		w, err := v.Watch(ctx, []Range{{Offset: 0, Length: 4096}}, nil, func(context.Context) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if _, err := v.Watch(ctx, []Range{{Offset: 0, Length: 4096}}, nil, nil); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if _, err := v.Watch(ctx, []Range{{Offset: 1 << 20, Length: 1}}, nil, nil); !errors.Is(err, ErrRange) {
		t.Errorf("outside the volume: %v", err)
	}
	for _, w := range all {
		w.Stop()
	}
	if v.watched.list.Load() != nil {
		t.Error("watches are left")
	}
}

// filled returns n bytes of one value.
func filled(n int, value byte) []byte { return bytes.Repeat([]byte{value}, n) }
