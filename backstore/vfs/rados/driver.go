package rados

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/owner"
)

const (
	// leaseTime is how long the lock of an owner lasts that does not renew it.
	leaseTime = 4 * time.Second
	// leaseMargin is how much less of it an owner uses: clocks go faster and slower.
	leaseMargin = leaseTime / 8
	renewEvery  = leaseTime / 4
	// pollEvery is how often who waits tries to take the lock.
	pollEvery = leaseTime / 8
	// raises bounds how often the epoch is compared again, when others raise it.
	raises = 10
	// purgesAtOnce bounds how many removed files a new owner cleans up after an earlier one.
	purgesAtOnce = 100
)

// driver decides about the owner by a lock on root, which ends by the clock of its OSD, and
// the epoch. The lock comes first: an owner whose epoch was raised by another holder without it
// would go on renewing.
type driver struct {
	f   *FS
	dir string
}

// RenewEvery implements owner.Driver.
func (driver) RenewEvery() time.Duration { return renewEvery }

// Claim implements owner.Driver.
func (d driver) Claim(ctx context.Context) (owner.Holding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.f.mu.Lock()
	err := d.f.isDir(clean(d.dir))
	line := d.f.line
	d.f.mu.Unlock()
	if err != nil {
		return nil, pathError("claim", d.dir, err)
	}
	h := &holding{f: d.f, cookie: newCookie(line)}
	if err := d.f.pool.Lock(rootObject, h.cookie, leaseTime, false); errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("%s: %w", d.dir, owner.ErrHeld)
	} else if err != nil {
		return nil, err
	}
	if h.epoch, err = d.f.take(); err != nil {
		return nil, errors.Join(err, h.f.pool.Unlock(rootObject, h.cookie))
	}
	return h, nil
}

// Wait implements owner.Driver.
func (d driver) Wait(ctx context.Context) (owner.Holding, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		h, err := d.Claim(ctx)
		if !errors.Is(err, owner.ErrHeld) {
			return h, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// Tenure returns who holds the lock, and the epoch, of a store that another process may own.
func (f *FS) Tenure() (Holder, uint64, error) {
	held, err := f.pool.Holder(rootObject)
	if err != nil && !notThere(err) {
		return held, 0, err
	}
	_, epoch, err := f.pool.Rows(rootObject)
	if notThere(err) {
		err = nil
	}
	return held, epoch, err
}

// take raises the epoch of root: from then on no earlier owner changes a name. Then it reads
// the names.
func (f *FS) take() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return 0, err
	}
	for range raises {
		_, epoch, err := f.pool.Rows(rootObject)
		if err != nil {
			return 0, err
		}
		err = do(f.pool, rootObject, &Change{Compare: Equal, Epoch: epoch, SetEpoch: epoch + 1})
		if errors.Is(err, ErrRefused) {
			continue
		}
		if err != nil {
			return 0, f.judge(err)
		}
		f.claimed = false
		if err := f.load(); err != nil {
			return 0, err
		}
		if f.epoch != epoch+1 {
			return 0, f.judge(fmt.Errorf("%w: epoch %d, now %d", ErrRefused, epoch+1, f.epoch))
		}
		f.claimed, f.nodes = true, make(map[uint64]*node)
		return f.epoch, f.purgeSome()
	}
	return 0, fmt.Errorf("%w: others raise the epoch again and again", owner.ErrHeld)
}

// purgeSome removes objects of files that an earlier owner has removed. f.mu is held.
func (f *FS) purgeSome() error {
	left := purgesAtOnce
	for number := range f.gone {
		if left--; left < 0 {
			break
		}
		if err := f.purge(number); err != nil {
			return err
		}
	}
	return nil
}

// holding is a claim.
type holding struct {
	f      *FS
	cookie string
	epoch  uint64
}

// Epoch implements owner.Holding.
func (h *holding) Epoch() uint64 { return h.epoch }

// Lease implements owner.Holding.
func (h *holding) Lease() time.Duration { return leaseTime - leaseMargin }

// Renew implements owner.Holding.
func (h *holding) Renew(context.Context) error {
	if err := h.f.check(); err != nil {
		return err
	}
	err := h.f.pool.Lock(rootObject, h.cookie, leaseTime, true)
	if notThere(err) || errors.Is(err, ErrBusy) {
		return fmt.Errorf("%w: its lock has ended", owner.ErrLost)
	}
	return err
}

// Release implements owner.Holding.
func (h *holding) Release() error {
	h.f.mu.Lock()
	h.f.claimed = false
	h.f.mu.Unlock()
	return h.f.pool.Unlock(rootObject, h.cookie)
}
