// Package latency counts durations in fixed buckets, without a lock.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is the number of buckets: one for each bound, and one for what takes longer than
// the last.
const Buckets = 22

// firstBound is the first bound.
const firstBound = 64 * time.Microsecond

// Bound returns the upper bound of a bucket but the last: 64 µs for 0, and twice as much
// for each, up to 67 s. The bounds never change, so that series of cumulative counts
// continue.
func Bound(bucket int) time.Duration { return firstBound << bucket }

// Histogram counts durations. The zero value is ready. It is safe for concurrent use.
type Histogram struct {
	nanoseconds atomic.Uint64
	counts      [Buckets]atomic.Uint64
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.nanoseconds.Add(uint64(d))
}

// bucket returns the bucket of a duration: the first one whose bound it does not exceed.
func bucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d-1, 0))/uint64(firstBound)), Buckets-1)
}

// Counts returns what was counted until now.
func (h *Histogram) Counts() (c Counts) {
	c.Sum = time.Duration(h.nanoseconds.Load())
	for i := range h.counts {
		c.Buckets[i] = h.counts[i].Load()
	}
	return c
}

// Counts are the durations of a histogram at one time.
type Counts struct {
	// Sum is of all durations.
	Sum time.Duration
	// Buckets[i] counts the durations of more than Bound(i-1) and at most Bound(i), the
	// last one the longer ones.
	Buckets [Buckets]uint64
}

// Total returns the number of durations.
func (c *Counts) Total() (n uint64) {
	for _, b := range c.Buckets {
		n += b
	}
	return n
}
