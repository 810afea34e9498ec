package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"odx/blockdev"
	"odx/tokens"
	"odx/tokens/tokentest"
)

// Copy makes the destination equal to the source as it was, between any two
// volumes, at any byte, also onto itself.
func TestCopy(t *testing.T) {
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
		s := tokentest.NewStore([16]byte{1})
		m := open(t, s, tokens.Limits{})
		outside := tokentest.Dumb{Volume: tokentest.NewStore([16]byte{2}).NewVolume("c", volumeSize), BlockLength: 512}
		volumes := []blockdev.Volume{s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize), outside}
		want := pattern(t, volumes[tc.destination], 2)
		data := pattern(t, volumes[tc.source], 1)
		if tc.source == tc.destination {
			want = bytes.Clone(data)
		}
		copy(want[tc.to:tc.to+tc.length], data[tc.from:])
		var moved int64
		if err := m.Copy(ctx, volumes[tc.source], tc.from, volumes[tc.destination], tc.to, tc.length, func(n int64) { moved += n }); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if moved != tc.length {
			t.Errorf("%s: %d of %d bytes told", tc.name, moved, tc.length)
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
func TestCopyErrors(t *testing.T) {
	s := tokentest.NewStore([16]byte{1})
	m := open(t, s, tokens.Limits{})
	a, b := s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize)
	run := func(ctx context.Context) error {
		return m.Copy(ctx, a, 0, b, 0, volumeSize, func(int64) {})
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
	_, ok := errors.AsType[*tokens.SourceError](err)
	return ok
}

// A crash between the snapshot of a copy and its end leaves nothing pinned.
func TestCopyThatACrashEnds(t *testing.T) {
	s := tokentest.NewStore([16]byte{1})
	m := open(t, s, tokens.Limits{})
	a, b := s.NewVolume("a", volumeSize), s.NewVolume("b", volumeSize)
	var crashed *tokentest.Store
	s.FailWith(func(op string) error {
		if op == "DeleteSnapshot" && crashed == nil {
			if err := s.Flush(ctx); err != nil {
				return err
			}
			crashed = s.Crash()
		}
		return nil
	})
	if err := m.Copy(ctx, a, 0, b, 0, volumeSize, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if exist, _ := crashed.Snapshots(); exist != 1 {
		t.Fatalf("%d snapshots when it crashed: the test proves nothing", exist)
	}
	open(t, crashed, tokens.Limits{})
	if exist, _ := crashed.Snapshots(); exist != 0 {
		t.Errorf("%d snapshots after the restart", exist)
	}
}

func TestPace(t *testing.T) {
	var p tokens.Pace
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
