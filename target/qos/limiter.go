package qos

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// maxDebt bounds how long work waits for what was charged after the fact (Charge).
const maxDebt = 2 * time.Second

// Limiter lets work pass at limits. Methods may be called concurrently. The zero value is
// a Limiter without limits.
type Limiter struct {
	// now are the buckets, nil without a limit. They change with mu held.
	now atomic.Pointer[buckets]

	mu    sync.Mutex // guards what follows, and taking from the buckets
	queue list.List  // of *entry: what waits, in its order
	// clock is the time for which the first entry of the queue was computed: when the
	// entry before it passed. A timer that fires late costs no tokens that way.
	clock time.Time
	// timer wakes the first entry. due is when.
	timer *time.Timer
	due   time.Time
}

// entry is a Waiter in the queue of a Limiter.
type entry struct {
	waiter *Waiter
	use    uint64 // of the Waiter: an entry of an earlier use is ignored
	cost   Cost
	at     *list.Element // nil once it has passed or was removed; the Limiter's mu guards it
}

// NewLimiter returns a Limiter with the given limits.
func NewLimiter(l Limits) *Limiter {
	r := new(Limiter)
	r.Set(l)
	return r
}

// Limits returns the current limits.
func (l *Limiter) Limits() Limits {
	if b := l.now.Load(); b != nil {
		return b.limits
	}
	return Limits{}
}

// Limited reports whether there is a limit.
func (l *Limiter) Limited() bool { return l.now.Load() != nil }

// Set changes the limits, for what waits too.
func (l *Limiter) Set(limits Limits) {
	t := time.Now()
	l.mu.Lock()
	if l.Limits() == limits {
		l.mu.Unlock()
		return
	}
	b := newBuckets(limits)
	if b != nil {
		b.inherit(t, l.now.Load())
	}
	l.now.Store(b)
	l.clock = t
	passed := l.advance(t)
	l.mu.Unlock()
	wakeAll(passed)
}

// Waiting returns how many pieces of work wait.
func (l *Limiter) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len()
}

// Charge takes c from the limits at once, for work that has been done: what comes next
// waits for it, but for no more than two seconds.
func (l *Limiter) Charge(c Cost) {
	if l.now.Load() == nil {
		return
	}
	t := time.Now()
	l.mu.Lock()
	if b := l.now.Load(); b != nil {
		if l.queue.Len() > 0 {
			t = l.clock
		}
		chargeLate(b, t, c)
		l.arm()
	}
	l.mu.Unlock()
}

// chargeLate takes c, but no more than what comes back within maxDebt.
func chargeLate(b *buckets, t time.Time, c Cost) {
	if r := b.operations; r != nil {
		take(r, t, min(c.Operations, int64(max(r.TokensAt(t)+float64(r.Limit())*maxDebt.Seconds(), 0))))
	}
	if r := b.bytes; r != nil {
		take(r, t, min(c.Bytes, int64(max(r.TokensAt(t)+float64(r.Limit())*maxDebt.Seconds(), 0))))
	}
}

// Wait waits until c has passed, for work that has a goroutine of its own. It returns the
// error of ctx if that ends first.
func (l *Limiter) Wait(ctx context.Context, c Cost) error {
	if l.now.Load() == nil {
		return ctx.Err()
	}
	var w Waiter
	passed := make(chan struct{})
	w.Begin(c, l)
	if w.Pass(func() { close(passed) }) {
		return ctx.Err()
	}
	select {
	case <-passed:
		return ctx.Err()
	case <-ctx.Done():
		w.Cancel()
		return ctx.Err()
	}
}

// tryPass lets c pass if nothing waits and there is enough for it.
func (l *Limiter) tryPass(c Cost) bool {
	if l.now.Load() == nil {
		return true
	}
	t := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.now.Load()
	switch {
	case b == nil:
		return true
	case l.queue.Len() > 0 || b.ready(t, c).After(t):
		return false
	}
	b.take(t, c)
	return true
}

// enqueue makes e wait, at the front if first. It reports whether e has passed instead.
func (l *Limiter) enqueue(e *entry, first bool) (passed bool) {
	t := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.now.Load()
	if b == nil {
		return true
	}
	if l.queue.Len() == 0 {
		if l.clock = t; !b.ready(t, e.cost).After(t) {
			b.take(t, e.cost)
			return true
		}
	}
	if first {
		e.at = l.queue.PushFront(e)
	} else {
		e.at = l.queue.PushBack(e)
	}
	l.arm()
	return false
}

// remove removes e, which then never passes. It reports whether e was waiting.
func (l *Limiter) remove(e *entry) (waited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.at == nil {
		return false
	}
	l.queue.Remove(e.at)
	e.at = nil
	l.arm()
	return true
}

// force lets e pass now, whatever the limits: what comes next waits for it. It reports
// whether e was waiting.
func (l *Limiter) force(e *entry) (waited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.at == nil {
		return false
	}
	l.queue.Remove(e.at)
	e.at = nil
	if b := l.now.Load(); b != nil {
		chargeLate(b, l.clock, e.cost)
	}
	l.arm()
	return true
}

// advance takes from the queue what may pass at t, and sets the timer for the rest. The
// caller holds mu, and wakes what has passed after it has released it.
func (l *Limiter) advance(t time.Time) (passed []*entry) {
	b := l.now.Load()
	for front := l.queue.Front(); front != nil; front = l.queue.Front() {
		e := front.Value.(*entry)
		if b != nil {
			due := b.ready(l.clock, e.cost)
			if due.After(t) {
				break
			}
			b.take(due, e.cost)
			l.clock = due
		}
		l.queue.Remove(front)
		e.at = nil
		passed = append(passed, e)
	}
	l.arm()
	return passed
}

// arm sets the timer for the first entry. The caller holds mu.
func (l *Limiter) arm() {
	front := l.queue.Front()
	if front == nil {
		if l.timer != nil {
			l.timer.Stop()
			l.due = time.Time{}
		}
		return
	}
	due := l.now.Load().ready(l.clock, front.Value.(*entry).cost)
	if l.due.Equal(due) {
		return
	}
	l.due = due
	if l.timer == nil {
		l.timer = time.AfterFunc(time.Until(due), l.fire)
		return
	}
	l.timer.Reset(time.Until(due))
}

// fire lets pass what is due.
func (l *Limiter) fire() {
	t := time.Now()
	l.mu.Lock()
	l.due = time.Time{}
	passed := l.advance(t)
	l.mu.Unlock()
	wakeAll(passed)
}

// wakeAll continues the waiters that have passed a limiter. The caller holds no lock.
func wakeAll(passed []*entry) {
	for _, e := range passed {
		e.waiter.continueAfter(e)
	}
}
