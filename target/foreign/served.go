package foreign

import (
	"bytes"
	"context"

	"odx/blockdev"
)

// Served is a Disk below a LUN. What it has written is durable. A command that is aborted
// does not end the session of the others: it is waited for, which has its bound.
type Served struct{ *Disk }

var (
	_ blockdev.ConditionalWriter = Served{}
	_ blockdev.Updater           = Served{}
)

// Served returns the disk as LUNs use it.
func (d *Disk) Served() Served { return Served{d} }

// ReadAt fills p from byte off on.
func (v Served) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return v.Disk.ReadAt(context.WithoutCancel(ctx), p, off)
}

// WriteAt writes p at byte off, durably.
func (v Served) WriteAt(ctx context.Context, p []byte, off int64) error {
	v.changing.RLock()
	defer v.changing.RUnlock()
	return v.write(ctx, p, off)
}

// write is WriteAt for a caller that holds changing.
func (v Served) write(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := v.check(off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	return v.run(context.WithoutCancel(ctx), off, func(ctx context.Context, s *session) error {
		if s.cache.Volatile && s.cache.FUA {
			return s.WriteThrough(ctx, p, off)
		}
		return flushed(ctx, s, s.WriteAt(ctx, p, off))
	})
}

// flushed makes what was written durable.
func flushed(ctx context.Context, s *session, err error) error {
	if err != nil || !s.cache.Volatile {
		return err
	}
	return s.Flush(ctx)
}

// Unmap makes a range read as zeros, durably.
func (v Served) Unmap(ctx context.Context, off, length int64) error {
	v.changing.RLock()
	defer v.changing.RUnlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return v.zero(context.WithoutCancel(ctx), off, length, func(ctx context.Context, s *session, off, n int64) error {
		return flushed(ctx, s, s.Zero(ctx, off, n))
	})
}

// Flush is that of the target.
func (v Served) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return v.Disk.Flush(context.WithoutCancel(ctx))
}

// CompareAndWrite is blockdev.ConditionalWriter. It is one step for all that comes through this
// server; a crash may leave a part of it, as of any write.
func (v Served) CompareAndWrite(ctx context.Context, compare, p []byte, off int64) (mismatch int, err error) {
	v.changing.Lock()
	defer v.changing.Unlock()
	was := make([]byte, len(compare))
	if err := v.ReadAt(ctx, was, off); err != nil {
		return 0, err
	}
	if !bytes.Equal(was, compare) {
		for was[mismatch] == compare[mismatch] {
			mismatch++
		}
		return mismatch, nil
	}
	return -1, v.write(ctx, p, off)
}

// Update is blockdev.Updater, as CompareAndWrite is one step.
func (v Served) Update(ctx context.Context, off int64, length int, fn func(data []byte)) error {
	v.changing.Lock()
	defer v.changing.Unlock()
	data := make([]byte, length)
	if err := v.ReadAt(ctx, data, off); err != nil {
		return err
	}
	fn(data)
	return v.write(ctx, data, off)
}
