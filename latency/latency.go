// Package latency counts durations in fixed buckets, without a lock.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is the number of buckets: one for each bound, and one for what takes longer than
// the last.
const Buckets = 24

// firstBound is the first bound.
const firstBound = 16 * time.Microsecond

// Bound returns the upper bound of a bucket but the last: 16 µs for 0, and twice as much
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

// Add adds other to c.
func (c *Counts) Add(other *Counts) {
	c.Sum += other.Sum
	for i := range c.Buckets {
		c.Buckets[i] += other.Buckets[i]
	}
}

// Sub subtracts what there was before.
func (c *Counts) Sub(before *Counts) {
	c.Sum -= before.Sum
	for i := range c.Buckets {
		c.Buckets[i] -= before.Buckets[i]
	}
}

// Quantile returns the duration that a share of q (0 to 1) did not exceed: the bound of its
// bucket, and of the last bucket twice the bound before it. 0: there are no durations.
func (c *Counts) Quantile(q float64) time.Duration {
	total := c.Total()
	if total == 0 {
		return 0
	}
	below := uint64(0)
	for i, n := range c.Buckets {
		if below += n; n > 0 && float64(below) >= q*float64(total) {
			return Bound(i)
		}
	}
	return Bound(Buckets - 1)
}

// Bounds returns the bounds of all buckets but the last.
func Bounds() []time.Duration {
	bounds := make([]time.Duration, Buckets-1)
	for i := range bounds {
		bounds[i] = Bound(i)
	}
	return bounds
}
