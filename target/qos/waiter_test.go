package qos

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Work passes in the order in which it came, except what is to be first.
func TestWaiter_Order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 10, OperationsBurst: 1})
		var mu sync.Mutex
		var order []string
		add := func(name string, first bool) {
			w := new(Waiter)
			w.Begin(Cost{Operations: 1}, l)
			if first {
				w.First()
			}
			note := func() {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
			}
			if w.Pass(note) {
				note()
			}
		}
		for _, name := range []string{"a", "b", "c"} {
			add(name, false)
		}
		add("head", true)
		add("d", false)
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a", "head", "b", "c", "d"}; !slices.Equal(order, want) {
			t.Errorf("passed in the order %v, want %v", order, want)
		}
	})
}

// Work that is withdrawn takes nothing, makes room at once, and is not woken.
func TestWaiter_Cancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Operations: 1, OperationsBurst: 1})
		all := enqueue(t, 10, Cost{Operations: 1}, l)
		began := time.Now()
		for _, w := range all[1:9] {
			w.Cancel()
			w.Cancel() // makes no difference
		}
		<-all[9].passed
		if took := time.Since(began); took != time.Second {
			t.Errorf("the last waited %s for those that were withdrawn", took)
		}
		if n := countPassed(all); n != 2 {
			t.Errorf("%d have passed, of which 8 were withdrawn", n)
		}
	})
}

// Work that waits for one limit has taken nothing of the next.
func TestWaiter_Stages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, shared := NewLimiter(Limits{Operations: 1, OperationsBurst: 1}), NewLimiter(Limits{Operations: 10, OperationsBurst: 10})
		held := enqueue(t, 8, Cost{Operations: 1}, slow, shared)
		if others := enqueue(t, 9, Cost{Operations: 1}, nil, shared); countPassed(others) != 9 {
			t.Errorf("%d of 9 have passed", countPassed(others))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := countPassed(held); n != 8 {
			t.Errorf("%d of 8 have passed", n)
		}
	})
}

// A bound on the wait ends it in time, at whichever limiter, and what was exceeded is
// charged to others.
func TestWaiter_Within(t *testing.T) {
	for name, at := range map[string]int{"the first limiter": 0, "the last": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limiters := []*Limiter{new(Limiter), new(Limiter), new(Limiter)}
				limiters[at].Set(Limits{Operations: 1, OperationsBurst: 1})
				l := limiters[at]
				before := enqueue(t, 5, Cost{Operations: 1}, l)
				w := &waiting{passed: make(chan struct{})}
				began := time.Now()
				w.Begin(Cost{Operations: 1}, limiters...)
				w.Within(2 * time.Second)
				if w.Pass(func() { close(w.passed) }) {
					t.Fatal("it does not wait")
				}
				<-w.passed
				if took := time.Since(began); took != 2*time.Second {
					t.Errorf("waited %s", took)
				}
				synctest.Wait()
				if n := countPassed(before); n < 2 || n > 3 {
					t.Errorf("%d of those before have passed", n)
				}
				<-before[4].passed
				if took := time.Since(began); took < 5*time.Second {
					t.Errorf("5 commands at 1 a second, and one that did not wait, passed in %s", took)
				}
			})
		})
	}
}

// Limits change and work is withdrawn at any time, concurrently: each use is woken once or
// withdrawn, and what is withdrawn is not woken afterwards.
func TestWaiter_Concurrent(t *testing.T) {
	limiters := []*Limiter{new(Limiter), new(Limiter), new(Limiter)}
	end := make(chan struct{})
	var changing, working sync.WaitGroup
	changing.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			l := limiters[rand.IntN(len(limiters))]
			l.Set(Limits{Operations: rand.Int64N(4) * 20_000, Bytes: rand.Int64N(4) * 20_000_000})
			l.Charge(Cost{1, 4096})
		}
	})
	var woken, withdrawn atomic.Int64
	for range 8 {
		working.Go(func() {
			var w Waiter
			for range 2000 {
				var state atomic.Int32 // 1: woken, 2: withdrawn
				passed := make(chan struct{})
				w.Begin(Cost{1, 1 + rand.Int64N(8192)}, limiters...)
				if rand.IntN(4) == 0 {
					w.First()
				}
				if rand.IntN(4) == 0 {
					w.Within(time.Duration(rand.IntN(300)) * time.Microsecond)
				}
				if w.Try() || w.Pass(func() {
					if !state.CompareAndSwap(0, 1) {
						t.Errorf("woken in state %d", state.Load())
					}
					close(passed)
				}) {
					woken.Add(1)
					continue
				}
				if rand.IntN(2) == 0 {
					w.Cancel()
					if state.CompareAndSwap(0, 2) {
						withdrawn.Add(1)
						continue
					}
				}
				<-passed
				woken.Add(1)
			}
			w.Cancel()
		})
	}
	working.Wait()
	close(end)
	changing.Wait()
	if woken.Load() == 0 || withdrawn.Load() == 0 {
		t.Errorf("%d woken, %d withdrawn", woken.Load(), withdrawn.Load())
	}
	for _, l := range limiters {
		if n := l.Waiting(); n != 0 {
			t.Errorf("%d wait", n)
		}
	}
}

// An initiator has one limiter while it is there, which follows what is configured.
func TestInitiators(t *testing.T) {
	var i Initiators
	a := i.Join("a")
	if a.Limited() || i.Join("a") != a || i.Join("b") == a {
		t.Error("not one limiter for each initiator")
	}
	i.Set(func(name string) Limits {
		if name == "b" {
			return Limits{}
		}
		return Limits{Operations: int64(len(name))}
	})
	if got := a.Limits(); got.Operations != 1 {
		t.Errorf("limits %+v", got)
	}
	if b := i.Join("b"); b.Limited() {
		t.Errorf("b has limits %+v", b.Limits())
	}
	if later := i.Join("later"); later.Limits().Operations != 5 {
		t.Errorf("limits %+v", later.Limits())
	}
	i.Leave("a")
	if i.Join("a") != a {
		t.Error("an initiator with two sessions lost its limiter with the first")
	}
	i.Leave("a")
	i.Leave("a")
	i.Leave("absent")
	if i.Join("a") == a || len(i.present) != 3 {
		t.Errorf("%d initiators are there", len(i.present))
	}
	i.Set(nil)
	if later := i.Join("later"); later.Limited() {
		t.Error("limits after their end")
	}
}
