package qos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// load keeps a number of pieces of work waiting at limiters, as an initiator with a queue
// depth does, and counts what passes.
type load struct {
	limiters []*Limiter
	cost     Cost
	depth    int

	mu     sync.Mutex
	passed int64
	done   bool
	work   []*Waiter
}

// start begins the load, stop ends it.
func (d *load) start() {
	d.work = make([]*Waiter, d.depth)
	for i := range d.work {
		d.work[i] = new(Waiter)
		go d.next(d.work[i])
	}
}

func (d *load) next(w *Waiter) {
	for {
		w.Begin(d.cost, d.limiters...)
		if !w.Pass(func() { go d.again(w) }) {
			return
		}
		if !d.count() {
			return
		}
	}
}

func (d *load) again(w *Waiter) {
	if d.count() {
		d.next(w)
	}
}

func (d *load) count() (goOn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.done {
		d.passed++
	}
	return !d.done
}

func (d *load) stop() (passed int64) {
	d.mu.Lock()
	d.done = true
	passed = d.passed
	d.mu.Unlock()
	for _, w := range d.work {
		w.Cancel()
	}
	return passed
}

// Limits hold: one of them, and two at once, whichever is the narrower, for commands that
// are short, or longer than a burst, and for several clients of one limit.
func TestLimiter_Rate(t *testing.T) {
	const seconds = 10
	for _, tt := range []struct {
		limits Limits
		bytes  int64 // of a command
		depth  int
		want   float64 // commands a second
	}{
		{Limits{Operations: 1000, OperationsBurst: 1}, 4096, 1, 1000},
		{Limits{Operations: 1000, OperationsBurst: 1}, 4096, 32, 1000},
		{Limits{Operations: 10_000}, 0, 32, 10_000},
		{Limits{Operations: 3, OperationsBurst: 1}, 1 << 20, 8, 3},
		{Limits{Bytes: 10 << 20}, 4096, 32, 2560},
		{Limits{Bytes: 10 << 20, BytesBurst: 1}, 64 << 10, 4, 160},
		{Limits{Bytes: 10 << 20, BytesBurst: 1 << 20}, 1<<20 + 512, 4, 10},
		{Limits{Bytes: 10 << 20, BytesBurst: 64 << 10}, 8 << 20, 4, 1.25},
		{Limits{Operations: 1000, Bytes: 100 << 20}, 4096, 32, 1000},
		{Limits{Operations: 1000, Bytes: 1 << 20}, 4096, 32, 256},
		{Limits{Operations: 256, Bytes: 1 << 20}, 4096, 32, 256},
	} {
		t.Run(fmt.Sprintf("%+v, %d bytes", tt.limits, tt.bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &load{limiters: []*Limiter{NewLimiter(tt.limits)}, cost: Cost{1, tt.bytes}, depth: tt.depth}
				d.start()
				time.Sleep(time.Second) // the burst
				synctest.Wait()
				d.mu.Lock()
				d.passed = 0
				d.mu.Unlock()
				time.Sleep(seconds * time.Second)
				synctest.Wait()
				got := float64(d.stop()) / seconds
				if math.Abs(got-tt.want) > max(0.01*tt.want, 1.0/seconds) {
					t.Errorf("%.2f a second, want %.2f", got, tt.want)
				}
			})
		})
	}
}

// Two initiators with a limit each and one together at a logical unit: the narrower limit
// decides for each, and what one does not use is the other's.
func TestLimiter_Shared(t *testing.T) {
	for _, tt := range []struct{ a, b, both, wantA, wantB float64 }{
		{100, 1000, 10_000, 100, 1000},
		{100, 1000, 500, 100, 400},
		{1000, 1000, 500, 250, 250},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := func(n float64) *Limiter { return NewLimiter(Limits{Operations: int64(n)}) }
				both := limit(tt.both)
				a := &load{limiters: []*Limiter{limit(tt.a), nil, both}, cost: Cost{1, 0}, depth: 32}
				b := &load{limiters: []*Limiter{limit(tt.b), nil, both}, cost: Cost{1, 0}, depth: 32}
				const seconds = 60
				a.start()
				b.start()
				time.Sleep(seconds * time.Second)
				for _, got := range []struct{ rate, want float64 }{{float64(a.stop()) / seconds, tt.wantA}, {float64(b.stop()) / seconds, tt.wantB}} {
					if math.Abs(got.rate-got.want) > 0.05*got.want {
						t.Errorf("%.1f a second, want %.1f", got.rate, got.want)
					}
				}
			})
		})
	}
}

// A pause makes a burst, and no more than that.
func TestLimiter_Burst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 10, OperationsBurst: 5})
		atOnce := func() (n int) {
			for l.tryPass(Cost{Operations: 1}) {
				n++
			}
			return n
		}
		for _, pause := range []struct {
			d    time.Duration
			want int
		}{{0, 5}, {200 * time.Millisecond, 2}, {time.Hour, 5}} {
			time.Sleep(pause.d)
			if got := atOnce(); got != pause.want {
				t.Errorf("%d at once after %s, want %d", got, pause.d, pause.want)
			}
		}
	})
}

// A timer that fires late costs no rate: all that was due passes, and what comes next is due
// as if it had been on time.
func TestLimiter_LateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 10, OperationsBurst: 1})
		began := time.Now()
		all := enqueue(t, 8, Cost{Operations: 1}, l) // the first passes
		l.mu.Lock()
		late := l.advance(began.Add(450 * time.Millisecond))
		due := l.due
		l.mu.Unlock()
		wakeAll(late)
		if got := countPassed(all); got != 5 || due != began.Add(500*time.Millisecond) {
			t.Errorf("%d have passed after 450 ms, the next is due after %s; want 5, 500 ms", got, due.Sub(began))
		}
	})
}

// waiting is work that records when it passed.
type waiting struct {
	Waiter
	name   string
	passed chan struct{}
}

// enqueue makes n pieces of work wait, and returns them.
func enqueue(t *testing.T, n int, c Cost, limiters ...*Limiter) []*waiting {
	t.Helper()
	var all []*waiting
	for i := range n {
		w := &waiting{name: fmt.Sprint(i), passed: make(chan struct{})}
		w.Begin(c, limiters...)
		if w.Pass(func() { close(w.passed) }) {
			close(w.passed)
		}
		all = append(all, w)
	}
	return all
}

// countPassed returns how many have passed.
func countPassed(all []*waiting) (n int) {
	for _, w := range all {
		select {
		case <-w.passed:
			n++
		default:
		}
	}
	return n
}

// Work that waits follows a new limit at once: a wider one, a narrower one, none.
func TestLimiter_Set(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 1, OperationsBurst: 1})
		all := enqueue(t, 1000, Cost{Operations: 1}, l)
		step := func(what string, pause time.Duration, want int) {
			t.Helper()
			time.Sleep(pause)
			synctest.Wait()
			if got := countPassed(all); got < want-1 || got > want+1 {
				t.Errorf("%s: %d have passed, want %d", what, got, want)
			}
		}
		step("1 a second", 3500*time.Millisecond, 4)
		l.Set(Limits{Operations: 100, OperationsBurst: 10})
		step("100 a second", time.Second, 104)
		l.Set(Limits{Operations: 1, OperationsBurst: 1})
		step("1 a second again", 5*time.Second, 109)
		l.Set(Limits{Bytes: 1 << 20})
		step("a limit of bytes alone", 0, 1000)
		if got := l.Limits(); got != (Limits{Bytes: 1 << 20}) {
			t.Errorf("limits %+v", got)
		}
		l.Set(Limits{Operations: 1, OperationsBurst: 1})
		all = enqueue(t, 10, Cost{Operations: 1}, l)
		l.Set(Limits{})
		step("no limit", 0, 10)
		if l.Limited() || l.Waiting() != 0 {
			t.Errorf("limited %t, %d wait", l.Limited(), l.Waiting())
		}
	})
}

// A change of limits makes no new burst.
func TestLimiter_Set_Burst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 100, OperationsBurst: 100})
		passed := 0
		for i := range 100 {
			l.Set(Limits{Operations: 100 + int64(i), OperationsBurst: 100})
			for l.tryPass(Cost{Operations: 1}) {
				passed++
			}
		}
		if passed > 101 {
			t.Errorf("%d passed at once through 100 changes of a limit with a burst of 100", passed)
		}
	})
}

// What was charged after the fact delays what comes next, for no more than two seconds.
func TestLimiter_Charge(t *testing.T) {
	for charged, want := range map[int64]time.Duration{1: 0, 11: 100 * time.Millisecond, 15: 500 * time.Millisecond, 1_000_000: maxDebt + 100*time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(Limits{Operations: 10, OperationsBurst: 11, Bytes: 1 << 40})
			l.Charge(Cost{Operations: charged, Bytes: 1})
			began := time.Now()
			<-enqueue(t, 1, Cost{Operations: 1}, l)[0].passed
			if took := time.Since(began); took < want-time.Millisecond || took > want+time.Millisecond {
				t.Errorf("%d charged: the next waited %s, want %s", charged, took, want)
			}
		})
	}
}

func TestLimiter_Wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := new(Limiter).Wait(t.Context(), Cost{Operations: 1 << 40, Bytes: 1 << 60}); err != nil {
			t.Error(err)
		}
		l := NewLimiter(Limits{Operations: 1, OperationsBurst: 1})
		began := time.Now()
		for range 3 {
			if err := l.Wait(t.Context(), Cost{Operations: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := l.Wait(ctx, Cost{Operations: 1}); !errors.Is(err, context.DeadlineExceeded) || l.Waiting() != 0 {
			t.Errorf("%v, %d wait", err, l.Waiting())
		}
	})
}

func TestLimits_Check(t *testing.T) {
	for _, l := range []Limits{{}, {Operations: 1}, {Bytes: maxRate}, {1, 1, 1, 1}} {
		if err := l.Check(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []Limits{{Operations: -1}, {Bytes: -1}, {Operations: 1, OperationsBurst: -1}, {Bytes: maxRate + 1}, {OperationsBurst: 1}, {Operations: 1, BytesBurst: 1}} {
		if l.Check() == nil {
			t.Errorf("%+v: no error", l)
		}
	}
}

// BenchmarkUnlimited is what a command costs where there is no limit.
func BenchmarkUnlimited(b *testing.B) {
	var l Limiter
	b.ReportAllocs()
	for b.Loop() {
		if l.Limited() {
			b.Fatal("limited")
		}
	}
}

// BenchmarkPass is what a command costs that limits let pass.
func BenchmarkPass(b *testing.B) {
	l := NewLimiter(Limits{Operations: maxRate, Bytes: maxRate})
	var w Waiter
	b.ReportAllocs()
	for b.Loop() {
		w.Begin(Cost{1, 4096}, l, nil, l)
		if !w.Try() {
			b.Fatal("waits")
		}
	}
}
