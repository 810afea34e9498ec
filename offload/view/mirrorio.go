package view

import (
	"context"
	"math/bits"
	"sync"

	"odx/blockdev"
	"odx/offload"
)

// first returns the leg used for reads.
func (v *Mirror) first() int { return bits.TrailingZeros64(v.inSync.Load()) }

// Size implements Volume.
func (v *Mirror) Size() int64 {
	size := v.Legs[0].Size()
	for _, leg := range v.Legs[1:] {
		size = min(size, leg.Size())
	}
	return size
}

// Backing implements Device.
func (v *Mirror) Backing() (all []blockdev.Volume) {
	for _, leg := range v.Legs {
		all = append(all, leg.Backing()...)
	}
	return all
}

// fromAny calls read with the legs in sync, in order, until one returns no error.
func (v *Mirror) fromAny(ctx context.Context, read func(Device) error) (err error) {
	for inSync := v.inSync.Load(); inSync != 0; inSync &= inSync - 1 {
		failed := read(v.Legs[bits.TrailingZeros64(inSync)])
		if failed == nil {
			return nil
		}
		if ctx.Err() != nil {
			return failed
		}
		if err == nil {
			err = failed
		}
	}
	return err
}

// ReadAt implements Volume.
func (v *Mirror) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.writes.Check(off, int64(len(p))); err != nil {
		return err
	}
	if v.Legs[v.first()].ReadAt(ctx, p, off) == nil {
		return nil
	}
	return v.fromAny(ctx, func(leg Device) error { return leg.ReadAt(ctx, p, off) })
}

// Locate implements Device. All pieces are of one leg.
func (v *Mirror) Locate(ctx context.Context, off, length int64) (pieces []offload.Piece, err error) {
	err = v.fromAny(ctx, func(leg Device) (err error) {
		pieces, err = leg.Locate(ctx, off, length)
		return err
	})
	return pieces, err
}

// onAll calls change with every leg in following, concurrently, and drops those that
// fail. It does not end with ctx, since the legs would differ.
func (v *Mirror) onAll(ctx context.Context, change func(ctx context.Context, leg Device) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var mu sync.Mutex
	var failed uint64
	var first error
	one := func(i int) {
		if err := change(ctx, v.Legs[i]); err != nil {
			mu.Lock()
			defer mu.Unlock()
			if failed |= 1 << i; first == nil {
				first = err
			}
		}
	}
	var others sync.WaitGroup
	following := v.following.Load()
	for ; following&(following-1) != 0; following &= following - 1 {
		i := bits.TrailingZeros64(following)
		others.Go(func() { one(i) })
	}
	one(bits.TrailingZeros64(following))
	others.Wait()
	if failed == 0 {
		return nil
	}
	return v.drop(ctx, failed, first)
}

// copier implements copying.
func (v *Mirror) copier(off, length int64) *offload.Engine {
	for _, leg := range v.Legs {
		if e := copierOf(leg.Device, off, length); e != nil {
			return e
		}
	}
	return nil
}

// change calls fn, which changes the range, with the range locked exclusively.
func (v *Mirror) change(ctx context.Context, off, length int64, fn func() error) error {
	if err := v.writes.Check(off, length); err != nil {
		return err // do not wait for the region
	}
	held := v.regions.of(off, length)
	held.lock()
	defer held.unlock()
	slot, err := v.writes.Begin(ctx, off, length)
	if err != nil {
		return err
	}
	defer v.writes.End(slot)
	if !v.written.Load() {
		v.written.Store(true)
	}
	return fn()
}

// WriteAt implements Volume.
func (v *Mirror) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.change(ctx, off, int64(len(p)), func() error {
		return v.onAll(ctx, func(ctx context.Context, leg Device) error { return leg.WriteAt(ctx, p, off) })
	})
}

// Unmap implements Volume.
func (v *Mirror) Unmap(ctx context.Context, off, length int64) error {
	return v.change(ctx, off, length, func() error {
		return v.onAll(ctx, func(ctx context.Context, leg Device) error { return leg.Unmap(ctx, off, length) })
	})
}

// Flush implements Volume.
func (v *Mirror) Flush(ctx context.Context) error {
	return v.onAll(ctx, func(ctx context.Context, leg Device) error { return leg.Flush(ctx) })
}

// Map implements Device. All legs map the number of bytes that the first one maps
// before its deadline.
func (v *Mirror) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (n int64, err error) {
	err = v.change(ctx, dst, length, func() (err error) {
		n, err = v.mapAll(context.WithoutCancel(ctx), dst, s, src, length)
		return err
	})
	return n, err
}

// mapAll maps in all legs the number of bytes that the first one maps before its
// deadline. The region is locked.
func (v *Mirror) mapAll(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (n int64, err error) {
	for following := v.following.Load(); following != 0; following &= following - 1 {
		n, err = v.Legs[bits.TrailingZeros64(following)].Map(ctx, dst, s, src, length)
		if err == nil {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	err = v.onAll(ctx, func(ctx context.Context, leg Device) error {
		for done := int64(0); done < n; {
			step, err := leg.Map(ctx, dst+done, s, src+done, n-done)
			if err != nil {
				return err
			}
			done += step
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
