// Package ownertest is what every driver of package owner has to pass.
package ownertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/owner"
)

// Run runs the suite. place returns a driver of a place without an owner, whose next epoch
// is 1.
func Run(t *testing.T, place func(t *testing.T) owner.Driver) {
	for name, test := range map[string]func(*testing.T, owner.Driver){
		"OneAtATime": oneAtATime, "Wait": wait, "WaitEndsAsItTakes": waitEndsAsItTakes, "CheckAllocatesNothing": checkAllocatesNothing,
	} {
		t.Run(name, func(t *testing.T) { test(t, place(t)) })
	}
}

func refused(t *testing.T, d owner.Driver) {
	t.Helper()
	if h, err := d.Claim(t.Context()); !errors.Is(err, owner.ErrHeld) {
		t.Errorf("a second claim: %v, %v, want ErrHeld", h, err)
	}
}

func oneAtATime(t *testing.T, d owner.Driver) {
	for epoch := uint64(1); epoch < 4; epoch++ {
		o, err := owner.Claim(t.Context(), d)
		must.Succeed(t, err)
		refused(t, d)
		if o.Epoch() != epoch || o.Check() != nil {
			t.Errorf("epoch %d, %v, want %d and an owner", o.Epoch(), o.Check(), epoch)
		}
		must.Succeed(t, o.Release())
		<-o.Lost()
		if err := o.Check(); !errors.Is(err, owner.ErrLost) {
			t.Errorf("after the release: %v, want ErrLost", err)
		}
		if err := o.Release(); err != nil {
			t.Errorf("a second release: %v", err)
		}
	}
}

func wait(t *testing.T, d owner.Driver) {
	first, err := owner.Claim(t.Context(), d)
	must.Succeed(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if o, err := owner.Wait(ended, d); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that is called off: %v, %v", o, err)
	}
	second := make(chan *owner.Owner)
	go func() {
		o, err := owner.Wait(t.Context(), d)
		if err != nil {
			t.Error(err)
		}
		second <- o
	}()
	select {
	case o := <-second:
		t.Errorf("epoch %d waited for nothing", o.Epoch())
	case <-time.After(20 * time.Millisecond): // no more than this is proved
	}
	must.Succeed(t, first.Release())
	o := <-second
	// A wait that was called off may have had it in between.
	if o.Epoch() <= first.Epoch() || o.Check() != nil {
		t.Errorf("epoch %d after %d, %v", o.Epoch(), first.Epoch(), o.Check())
	}
	must.Succeed(t, o.Release())
}

// endedUnseen is a context that has ended since Err was called.
type endedUnseen struct{ context.Context }

func (endedUnseen) Err() error { return nil }

// A wait that ends with its context as it takes the store gives it back.
func waitEndsAsItTakes(t *testing.T, d owner.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if h, _ := d.Wait(endedUnseen{ctx}); h != nil {
			must.Succeed(t, h.Release())
		}
		next, err := d.Wait(t.Context())
		must.Succeed(t, err)
		must.Succeed(t, next.Release())
	}
}

func checkAllocatesNothing(t *testing.T, d owner.Driver) {
	o, err := owner.Claim(t.Context(), d)
	must.Succeed(t, err)
	if n := testing.AllocsPerRun(100, func() { _ = o.Check() }); n > 1 { // the renewal allocates
		t.Errorf("%v allocations while it holds", n)
	}
	must.Succeed(t, o.Release())
	if n := testing.AllocsPerRun(100, func() { _ = o.Check() }); n != 0 {
		t.Errorf("%v allocations after the loss", n)
	}
}
