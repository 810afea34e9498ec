package offload_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/offloadtest"
)

var ctx = context.Background()

const volumeSize = 1 << 20

func open(t *testing.T, s offload.Store) *offload.Engine {
	t.Helper()
	e, err := offload.Open(ctx, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// pattern fills a volume with bytes that differ from block to block, and returns them.
func pattern(t *testing.T, v blockdev.Volume, seed byte) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	for i := range p {
		p[i] = seed ^ byte(i) ^ byte(i>>12)*7
	}
	if err := v.WriteAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func contents(t *testing.T, v blockdev.Volume) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	if err := v.ReadAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// Copy makes the destination equal to the source as it was, between any two
// volumes, at any byte, also onto itself.
func TestEngine_Copy(t *testing.T) {
	for _, tc := range []struct {
		name             string
		source           int
		destination      int
		from, to, length int64
	}{
		{"between volumes of the store", 0, 1, 4096, 8192, 100 << 10},
		{"at any byte", 0, 1, 17, 4001, 12345},
		{"forwards onto itself", 0, 0, 0, 1000, 500_000},
		{"backwards onto itself", 0, 0, 1000, 0, 500_000},
		{"out of the store", 0, 2, 512, 0, 100 << 10},
		{"into the store", 2, 0, 512, 0, 100 << 10},
		{"forwards onto itself, outside", 2, 2, 0, 512, 1 << 19},
		{"backwards onto itself, outside", 2, 2, 512, 0, 1 << 19},
		{"nothing", 0, 1, 0, 0, 0},
	} {
		s := offloadtest.NewStore([16]byte{1})
		e := open(t, s)
		outside := offloadtest.Foreign{Volume: offloadtest.NewStore([16]byte{2}).NewVolume("c", volumeSize), BlockLength: 512}
		volumes := []blockdev.Volume{s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize), outside}
		want := pattern(t, volumes[tc.destination], 2)
		data := pattern(t, volumes[tc.source], 1)
		if tc.source == tc.destination {
			want = bytes.Clone(data)
		}
		copy(want[tc.to:tc.to+tc.length], data[tc.from:])
		var moved int64
		if err := e.Copy(ctx, volumes[tc.source], tc.from, volumes[tc.destination], tc.to, tc.length, func(n int64) { moved += n }); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if moved != tc.length {
			t.Errorf("%s: %d of %d bytes reported", tc.name, moved, tc.length)
		}
		if !bytes.Equal(contents(t, volumes[tc.destination]), want) {
			t.Errorf("%s: wrong data", tc.name)
		}
		if exist, handles := s.Snapshots(); exist+handles != 0 {
			t.Errorf("%s: %d snapshots and %d handles are left", tc.name, exist, handles)
		}
	}
}

// The caller learns which end failed, and that it stopped.
func TestEngine_Copy_errors(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	e := open(t, s)
	a, b := s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize)
	run := func(ctx context.Context) error {
		return e.Copy(ctx, a, 0, b, 0, volumeSize, func(int64) {})
	}
	fail := func(method string) {
		s.FailWith(func(op string) error {
			if op == method {
				return blockdev.ErrCorrupt
			}
			return nil
		})
	}
	fail("Snapshot")
	if err := run(ctx); !errors.Is(err, blockdev.ErrCorrupt) || !isSource(err) {
		t.Errorf("source: %v", err)
	}
	fail("Map")
	if err := run(ctx); !errors.Is(err, blockdev.ErrCorrupt) || isSource(err) {
		t.Errorf("destination: %v", err)
	}
	s.FailWith(nil)
	ended, end := context.WithCancel(ctx)
	end()
	if err := run(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if exist, handles := s.Snapshots(); exist+handles != 0 {
		t.Errorf("%d snapshots and %d handles are left", exist, handles)
	}
}

func isSource(err error) bool {
	_, ok := errors.AsType[*offload.SourceError](err)
	return ok
}

// A crash between the snapshot of a copy and its end leaves nothing pinned.
func TestEngine_Copy_crash(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	e := open(t, s)
	a, b := s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize)
	var crashed *offloadtest.Store
	s.FailWith(func(op string) error {
		if op == "DeleteSnapshot" && crashed == nil {
			if err := s.Flush(ctx); err != nil {
				return err
			}
			crashed = s.Crash()
		}
		return nil
	})
	if err := e.Copy(ctx, a, 0, b, 0, volumeSize, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if exist, _ := crashed.Snapshots(); exist != 1 {
		t.Fatalf("%d snapshots when it crashed: the test proves nothing", exist)
	}
	open(t, crashed)
	if exist, _ := crashed.Snapshots(); exist != 0 {
		t.Errorf("%d snapshots after the restart", exist)
	}
}

func TestPace(t *testing.T) {
	var p offload.Pace
	first := p.Step()
	for range 100 {
		p.Took(0)
	}
	if p.Step() < 1<<40 {
		t.Errorf("a step of %d bytes, however quick they are", p.Step())
	}
	for range 100 {
		p.Took(time.Second)
	}
	if p.Step() != first {
		t.Errorf("a step of %d bytes, however slow they are", p.Step())
	}
}

// Pin shows ranges of any volume as ranges of one object of the store.
func TestEngine_Pin(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	e := open(t, s)
	own := s.NewVolume("a", volumeSize)
	other := offloadtest.NewStore([16]byte{2}).NewVolume("b", 4<<20)
	for _, tt := range []struct {
		name   string
		v      blockdev.Volume
		ranges []blockdev.Range
		late   bool
		want   int64 // bytes pinned
		err    error
	}{
		{"of the store", own, []blockdev.Range{{Offset: 512, Length: 1024}, {Offset: 8192, Length: 512}}, false, 1536, nil},
		{"outside, in time", other, []blockdev.Range{{Offset: 512, Length: 3 << 20}}, false, 3 << 20, nil},
		{"outside, late", other, []blockdev.Range{{Offset: 512, Length: 3 << 20}}, true, 1 << 20, nil},
		{"past the end", own, []blockdev.Range{{Offset: volumeSize, Length: 512}}, false, 0, blockdev.ErrRange},
		{"part of a block", own, []blockdev.Range{{Offset: 0, Length: 100}}, false, 0, blockdev.ErrRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, ctx := pattern(t, tt.v, 1), ctx
			if tt.late {
				ctx = blockdev.StopAfter(ctx, 0)
			}
			var want []byte
			for _, r := range tt.ranges {
				if tt.err == nil {
					want = append(want, data[r.Offset:r.End()]...)
				}
			}
			var got []byte
			err := e.Pin(ctx, tt.v, tt.ranges, 512, func(object offload.Object, ranges []blockdev.Range, n int64) error {
				if n != tt.want {
					t.Errorf("%d bytes, want %d", n, tt.want)
				}
				for _, r := range ranges {
					p := make([]byte, r.Length)
					if err := object.ReadAt(ctx, p, r.Offset); err != nil {
						return err
					}
					got = append(got, p...)
				}
				return nil
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v, want %v", err, tt.err)
			}
			if !bytes.Equal(got, want[:tt.want]) {
				t.Error("wrong data")
			}
			if v := s.Volumes(); len(v) != 1 {
				t.Errorf("left are the volumes %v", v)
			}
		})
	}
}
