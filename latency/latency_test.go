package latency

import (
	"sync"
	"testing"
	"time"
)

// TestHistogram_Observe: a duration is in the first bucket whose bound it does not exceed.
func TestHistogram_Observe(t *testing.T) {
	for _, tt := range []struct {
		took   time.Duration
		bucket int
	}{
		{-time.Second, 0}, {0, 0}, {1, 0}, {16 * time.Microsecond, 0},
		{16*time.Microsecond + 1, 1}, {32 * time.Microsecond, 1}, {33 * time.Microsecond, 2},
		{Bound(Buckets - 2), Buckets - 2}, {Bound(Buckets-2) + 1, Buckets - 1}, {time.Hour, Buckets - 1},
	} {
		var h Histogram
		h.Observe(tt.took)
		c := h.Counts()
		if c.Buckets[tt.bucket] != 1 || c.Total() != 1 || c.Sum != max(tt.took, 0) {
			t.Errorf("%v: %+v, want one in bucket %d", tt.took, c, tt.bucket)
		}
	}
}

// TestHistogram_Concurrent: nothing is lost, and nothing is allocated.
func TestHistogram_Concurrent(t *testing.T) {
	var h Histogram
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				h.Observe(time.Millisecond)
			}
		})
	}
	all.Wait()
	if c := h.Counts(); c.Total() != 8000 || c.Sum != 8*time.Second {
		t.Errorf("%d durations of %v together, want 8000 of 8s", c.Total(), c.Sum)
	}
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
