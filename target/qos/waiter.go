package qos

import (
	"sync"
	"time"
)

// maxLimiters bounds the limiters of a Waiter.
const maxLimiters = 3

// Waiter takes a piece of work through limiters, one after the other. It is used again
// and again: each use begins with Begin, and ends with Cancel if it has not passed. The
// zero value is ready. Begin, Try, Pass and Cancel belong to the owner of the work, who
// calls them one at a time.
type Waiter struct {
	mu sync.Mutex // guards what follows
	// use counts the uses, so that what an earlier one has left is recognized.
	use      uint64
	cost     Cost
	limiters [maxLimiters]*Limiter
	n        int
	stage    int // of the limiters, the one that is next
	// first: at the front of each queue.
	first bool
	// hurried: the limiters are charged, and nothing is waited for.
	hurried  bool
	deadline time.Time // when hurried becomes true, zero for never
	hurry    *time.Timer
	entry    *entry // in the queue of limiters[stage], or about to leave it; nil if there is none
	wake     func()
}

// Begin begins a use: work that costs c is to pass the limiters, of which nil ones have no
// effect. The last use must have ended.
func (w *Waiter) Begin(c Cost, limiters ...*Limiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.use++
	w.cost, w.n, w.stage = c, 0, 0
	w.first, w.hurried, w.deadline = false, false, time.Time{}
	for _, l := range limiters {
		if l != nil {
			w.limiters[w.n] = l
			w.n++
		}
	}
}

// First makes the work precede other work that waits.
func (w *Waiter) First() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.first = true
}

// Within bounds the wait: work that has not passed after d passes, and what it exceeds the
// limits by is charged to the work after it.
func (w *Waiter) Within(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Now().Add(d)
}

// Try reports whether the work has passed, as far as it can without a wait.
func (w *Waiter) Try() (passed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; w.stage < w.n; w.stage++ {
		if w.entry != nil || !w.limiters[w.stage].tryPass(w.cost) {
			return false
		}
	}
	return true
}

// Pass reports whether the work has passed; otherwise wake is called once, when it has.
// wake must return at once and must take no lock that is held around a method of w.
func (w *Waiter) Pass(wake func()) (passed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.advance() {
		return true
	}
	w.wake = wake
	if !w.deadline.IsZero() {
		use := w.use
		w.hurry = time.AfterFunc(time.Until(w.deadline), func() { w.expire(use) })
	}
	return false
}

// Cancel ends a use. When it returns, the work no longer waits, and wake is not called any
// more.
func (w *Waiter) Cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.use++
	if w.entry != nil {
		w.limiters[w.stage].remove(w.entry)
	}
	w.end()
}

// end drops what a use has held. The caller holds mu.
func (w *Waiter) end() {
	if w.hurry != nil {
		w.hurry.Stop()
		w.hurry = nil
	}
	w.entry, w.wake, w.n, w.stage = nil, nil, 0, 0
	w.limiters = [maxLimiters]*Limiter{}
}

// advance goes as far as possible, and reports whether the work has passed. It waits in
// the queue of the limiter at which it stops. The caller holds mu.
func (w *Waiter) advance() (passed bool) {
	for ; w.stage < w.n; w.stage++ {
		l := w.limiters[w.stage]
		if w.hurried {
			l.Charge(w.cost)
			continue
		}
		e := &entry{waiter: w, use: w.use, cost: w.cost}
		if !l.enqueue(e, w.first) {
			w.entry = e
			return false
		}
	}
	return true
}

// continueAfter continues after e has passed a limiter.
func (w *Waiter) continueAfter(e *entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.use != e.use || w.entry != e {
		return
	}
	w.entry = nil
	w.stage++
	w.finish()
}

// expire ends the wait of a use.
func (w *Waiter) expire(use uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.use != use || w.wake == nil {
		return
	}
	w.hurried = true
	if w.entry == nil || !w.limiters[w.stage].force(w.entry) {
		return // it has passed this limiter, and continueAfter follows
	}
	w.entry = nil
	w.stage++
	w.finish()
}

// finish goes on, and wakes the owner if the work has passed. The caller holds mu.
func (w *Waiter) finish() {
	if !w.advance() {
		return
	}
	wake := w.wake
	w.end()
	wake()
}
