package qos

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what passes in a second. The zero value has no limit.
type Limits struct {
	// Operations are the operations a second, 0 for no limit. OperationsBurst is the
	// number that may pass at once after a pause; 0: those of a tenth of a second.
	Operations, OperationsBurst int64
	// Bytes are the bytes a second, 0 for no limit. BytesBurst is the number that may
	// pass at once after a pause; 0: those of a tenth of a second. Work with more bytes
	// passes when the burst is full, and the work after it waits for it.
	Bytes, BytesBurst int64
}

// IsZero reports whether there is no limit.
func (l Limits) IsZero() bool { return l.Operations == 0 && l.Bytes == 0 }

// Check returns an error for limits that no Limiter can have.
func (l Limits) Check() error {
	for _, v := range []struct {
		name  string
		value int64
	}{{"operations", l.Operations}, {"burst of operations", l.OperationsBurst}, {"bytes", l.Bytes}, {"burst of bytes", l.BytesBurst}} {
		if v.value < 0 || v.value > maxRate {
			return fmt.Errorf("limit of %s: %d is not between 0 and %d", v.name, v.value, int64(maxRate))
		}
	}
	if l.Operations == 0 && l.OperationsBurst != 0 || l.Bytes == 0 && l.BytesBurst != 0 {
		return fmt.Errorf("limits: a burst without a limit has no effect")
	}
	return nil
}

// Bounds of limits. Below maxRate, the tokens of a bucket are exact in a float64.
const (
	maxRate = 1 << 50
	// minBytesBurst bounds how many reservations one command takes, in bytes.
	minBytesBurst = 64 << 10
	// defaultBurst is the time whose operations or bytes make the default of a burst.
	defaultBurst = 100 * time.Millisecond
)

// Cost is what a piece of work counts as.
type Cost struct {
	Operations, Bytes int64
}

// buckets are the token buckets of limits. Only the holder of a Limiter's lock takes
// from them, so that what they have can only grow until then.
type buckets struct {
	limits            Limits
	operations, bytes *rate.Limiter // nil for no limit
}

// newBuckets returns full buckets; nil for no limit.
func newBuckets(l Limits) *buckets {
	if l.IsZero() {
		return nil
	}
	return &buckets{l, newBucket(l.Operations, l.OperationsBurst, 1), newBucket(l.Bytes, l.BytesBurst, minBytesBurst)}
}

func newBucket(perSecond, burst, least int64) *rate.Limiter {
	if perSecond == 0 {
		return nil
	}
	if burst == 0 {
		burst = int64(float64(perSecond) * defaultBurst.Seconds())
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(max(burst, least)))
}

// ready returns when both buckets have enough for c, from t on.
func (b *buckets) ready(t time.Time, c Cost) time.Time {
	operations, bytes := ready(b.operations, t, c.Operations), ready(b.bytes, t, c.Bytes)
	if bytes.After(operations) {
		return bytes
	}
	return operations
}

// ready returns when a bucket has n tokens, or is full.
func ready(l *rate.Limiter, t time.Time, n int64) time.Time {
	if l == nil || n <= 0 {
		return t
	}
	missing := float64(min(n, int64(l.Burst()))) - l.TokensAt(t)
	if missing <= 0 {
		return t
	}
	return t.Add(time.Duration(math.Ceil(missing / float64(l.Limit()) * float64(time.Second))))
}

// take takes c at t, whether it is there or not.
func (b *buckets) take(t time.Time, c Cost) {
	take(b.operations, t, c.Operations)
	take(b.bytes, t, c.Bytes)
}

// take takes n tokens. A reservation is for no more than a burst, so that more take
// several, which begin one after the other.
func take(l *rate.Limiter, t time.Time, n int64) {
	for l != nil && n > 0 {
		part := min(n, int64(l.Burst()))
		l.ReserveN(t, int(part))
		n -= part
	}
}

// inherit makes the buckets as empty at t as those before were: a change of limits is no
// reason for another burst.
func (b *buckets) inherit(t time.Time, before *buckets) {
	if before == nil {
		return
	}
	inherit(b.operations, t, before.operations)
	inherit(b.bytes, t, before.bytes)
}

func inherit(l *rate.Limiter, t time.Time, before *rate.Limiter) {
	if l == nil || before == nil {
		return
	}
	// A debt is paid at the new rate; what is left of a burst stays.
	if has := before.TokensAt(t); has < float64(l.Burst()) {
		debt := min(float64(l.Burst())-has, float64(l.Burst())+float64(l.Limit())*maxDebt.Seconds())
		take(l, t, int64(debt))
	}
}
