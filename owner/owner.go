// Package owner decides which process owns a store. A claim is for one process at a time,
// and has an epoch, which grows with each claim that may change the store. An owner renews
// its claim in the background; once it has lost it, it never has it again, and Check says
// so to callers that are about to write or to answer.
//
// A Driver is where claims are decided: a directory of this machine (Directory), or a place in
// memory with leases (Memory).
package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrHeld: another process, or another claim of this one, owns the store.
	ErrHeld = errors.New("owned by another process")
	// ErrLost: the claim does not hold any more.
	ErrLost = errors.New("the store is not owned by this process any more")
)

// Driver decides who owns one store.
type Driver interface {
	// Claim takes the store, or returns ErrHeld.
	Claim(ctx context.Context) (Holding, error)
	// Wait takes the store as soon as it has no owner.
	Wait(ctx context.Context) (Holding, error)
	// RenewEvery is how often a claim is to be renewed.
	RenewEvery() time.Duration
}

// Holding is a claim.
type Holding interface {
	// Epoch is larger than that of every earlier claim, if the driver counts them and what
	// it counts in was not removed in between; see the drivers.
	Epoch() uint64
	// Lease is for how long the claim holds from the moment on when it was asked for; 0: until
	// Renew says that it is lost.
	Lease() time.Duration
	// Renew extends the claim by Lease from the moment on when Renew is called. ErrLost is
	// final; after other errors the claim holds for as long as it did before.
	Renew(ctx context.Context) error
	// Release gives the store back. It is called once, also after a loss.
	Release() error
}

// Owner is the ownership of a store by this process. Its methods may be called
// concurrently.
type Owner struct {
	holding Holding
	now     func() time.Duration

	until atomic.Int64 // in nanoseconds of now; 0: until it is lost
	lost  atomic.Pointer[error]
	gone  chan struct{} // closed with the loss

	stop     context.CancelFunc
	renewing sync.WaitGroup
	release  sync.Once
	released error
}

// Claim takes a store, or returns ErrHeld.
func Claim(ctx context.Context, d Driver) (*Owner, error) { return start(ctx, d, d.Claim) }

// Wait takes a store as soon as it has no owner.
func Wait(ctx context.Context, d Driver) (*Owner, error) { return start(ctx, d, d.Wait) }

func start(ctx context.Context, d Driver, claim func(context.Context) (Holding, error)) (*Owner, error) {
	o, err := newOwner(ctx, claim, sinceBoot)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.renewing.Go(func() { o.keep(run, d.RenewEvery()) })
	return o, nil
}

// newOwner claims a store. now is a clock that never jumps and goes on while this process
// or this machine sleeps.
//
// A driver that waits is asked long before it has an answer, and a lease begins when it is
// granted, not before: so one with a lease is renewed before it is used.
func newOwner(ctx context.Context, claim func(context.Context) (Holding, error), now func() time.Duration) (*Owner, error) {
	h, err := claim(ctx)
	if err != nil {
		return nil, err
	}
	o := &Owner{holding: h, now: now, gone: make(chan struct{}), stop: func() {}}
	if h.Lease() == 0 {
		return o, nil
	}
	o.until.Store(int64(now() + h.Lease())) // for Renew alone
	if err := o.renew(ctx); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return o, nil
}

// sinceBoot is the time since this machine started, with the time that it was suspended.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Duration(1<<63 - 1) // no lease holds by a clock that is not there
	}
	return time.Duration(t.Nano())
}

// Epoch returns the epoch of the claim.
func (o *Owner) Epoch() uint64 { return o.holding.Epoch() }

// Check returns nil while this process owns the store, and an ErrLost from the first
// moment on when that is not certain. It takes no lock and allocates nothing: a writer
// calls it before it writes, and what answers when the answer is ready.
func (o *Owner) Check() error {
	if err := o.lost.Load(); err != nil {
		return *err
	}
	if until := o.until.Load(); until != 0 && int64(o.now()) >= until {
		return o.lose(errors.New("its lease was not renewed in time"))
	}
	return nil
}

// Lost is closed when the ownership is lost or released.
func (o *Owner) Lost() <-chan struct{} { return o.gone }

// lose makes the loss final, and returns the first one.
func (o *Owner) lose(why error) error {
	err := why
	if !errors.Is(err, ErrLost) {
		err = fmt.Errorf("%w: %w", ErrLost, why)
	}
	if o.lost.CompareAndSwap(nil, &err) {
		close(o.gone)
	}
	return *o.lost.Load()
}

// renew extends the claim once.
func (o *Owner) renew(ctx context.Context) error {
	asked := o.now()
	if err := o.Check(); err != nil {
		return err
	}
	err := o.holding.Renew(ctx)
	if errors.Is(err, ErrLost) {
		return o.lose(err)
	}
	if err != nil {
		return err
	}
	// What came late extends nothing: Check may have been called since, and other code
	// may have acted on what it said.
	if err := o.Check(); err != nil {
		return err
	}
	if lease := o.holding.Lease(); lease != 0 {
		o.until.Store(int64(asked + lease))
	}
	return nil
}

// keep renews the claim until it is lost or ctx ends.
func (o *Owner) keep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for o.lost.Load() == nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, max(every, o.holding.Lease()))
		// An error that is no loss is one when the lease has ended; the next tick sees it.
		_ = o.renew(limited)
		cancel()
	}
}

// Release gives the store back. From its beginning on, Check returns ErrLost.
func (o *Owner) Release() error {
	o.release.Do(func() {
		_ = o.lose(errors.New("it was released"))
		o.stop()
		o.renewing.Wait()
		o.released = o.holding.Release()
	})
	return o.released
}
