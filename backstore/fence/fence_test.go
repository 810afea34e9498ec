package fence

import (
	"context"
	"errors"
	"sync"
	"testing"

	"odx/blockdev"
)

func begin(t *testing.T, w *Writes, ctx context.Context, offset, length int64) int {
	t.Helper()
	slot, err := w.Begin(ctx, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// An aborted write blocks its range, and no other, until it returns.
func TestWrites_Begin(t *testing.T) {
	var w Writes
	running := t.Context()
	aborted, abort := context.WithCancel(running)
	slot := begin(t, &w, aborted, 4096, 4096)
	live := begin(t, &w, running, 4096, 4096) // writes may overlap
	w.End(live)
	abort()
	for _, tt := range []struct {
		name           string
		offset, length int64
		want           error
	}{
		{"same range", 4096, 4096, blockdev.ErrBusy},
		{"first byte", 0, 4097, blockdev.ErrBusy},
		{"last byte", 8191, 1, blockdev.ErrBusy},
		{"around", 0, 1 << 20, blockdev.ErrBusy},
		{"before", 0, 4096, nil},
		{"after", 8192, 4096, nil},
		{"empty", 5000, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := w.Check(tt.offset, tt.length); !errors.Is(err, tt.want) {
				t.Errorf("Check: %v, want %v", err, tt.want)
			}
			if tt.length == 0 {
				return
			}
			slot, err := w.Begin(running, tt.offset, tt.length)
			if !errors.Is(err, tt.want) {
				t.Errorf("Begin: %v, want %v", err, tt.want)
			}
			if err == nil {
				w.End(slot)
			}
		})
	}
	w.End(slot)
	if err := w.Check(0, 1<<20); err != nil {
		t.Errorf("after the write has returned: %v", err)
	}
	w.End(begin(t, &w, running, 0, 1<<20))
}

func TestWrites_BeginEndedContext(t *testing.T) {
	var w Writes
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Begin(ended, 0, 512); !errors.Is(err, context.Canceled) {
		t.Errorf("Begin: %v", err)
	}
	if err := w.Check(0, 512); err != nil {
		t.Errorf("after a refused Begin: Check: %v", err)
	}
}

// Every slot is freed after concurrent writes, some of them aborted.
func TestWrites_Concurrent(t *testing.T) {
	var w Writes
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 2000 {
				ctx, cancel := context.WithCancel(t.Context())
				slot, err := w.Begin(ctx, int64(n+i)%8, 1)
				if n%4 == 0 {
					cancel()
				}
				if err == nil {
					w.End(slot)
				} else if !errors.Is(err, blockdev.ErrBusy) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if err := w.Check(0, 8); err != nil || len(w.free) != len(w.slots) {
		t.Errorf("%v, %d of %d slots free", err, len(w.free), len(w.slots))
	}
}

func BenchmarkWrites(b *testing.B) {
	var w Writes
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		slot, err := w.Begin(ctx, 0, 4096)
		if err != nil {
			b.Fatal(err)
		}
		w.End(slot)
	}
}
