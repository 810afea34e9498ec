//go:build invariants

package pages

import (
	"testing"

	"odx/backstore/meta"
)

func wantPanic(t *testing.T, what string, fn func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	fn()
}

func TestInvariants_Change(t *testing.T) {
	kv, clock := meta.NewMem(), NewClock()
	c := newCache(kv, clock, 0)
	set(t, c, 1, 10)
	clock.Tick()
	cut := c.Cut()
	store(t, kv, cut)
	cut.Done()
	o, err := c.Lock(1)
	if err != nil {
		t.Fatal(err)
	}
	o.evicted = true
	wantPanic(t, "change of an evicted object", func() { c.Change(o) })
	o.evicted = false
	o.Unlock()
	wantPanic(t, "change of an unlocked object", func() { c.Change(o) })
}

func TestInvariants_Evict(t *testing.T) {
	kv := meta.NewMem()
	c := newCache(kv, NewClock(), 0)
	o, err := c.Lock(0)
	if err != nil {
		t.Fatal(err)
	}
	o.n = 7 // without Change
	o.Unlock()
	wantPanic(t, "change without a call of Change", func() {
		for id := range uint64(100) {
			get(t, c, shardCount*(id+1))
		}
	})
}
