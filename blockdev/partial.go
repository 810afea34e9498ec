package blockdev

import (
	"context"
	"sync/atomic"
	"time"
)

// Grace is how long before the end of its context an operation that returns how much
// it did begins no further step: the time that a step in flight may take.
const Grace = 100 * time.Millisecond

type (
	stopKey   struct{}
	taskKey   struct{}
	copiedKey struct{}
)

// StopAfter returns a context under which operations that return how much they did
// stop after d. Unlike a deadline, it interrupts no step and fails nothing. Within a
// context that stops earlier, the earlier time counts.
func StopAfter(ctx context.Context, d time.Duration) context.Context {
	stop := time.Now().Add(d)
	if earlier, ok := ctx.Value(stopKey{}).(time.Time); ok && earlier.Before(stop) {
		return ctx
	}
	return context.WithValue(ctx, stopKey{}, stop)
}

// Late reports whether an operation that returns how much it did should begin no
// further step: ctx ends within Grace, or the time of StopAfter is over. The operation
// does one step all the same, so that its caller, which calls again, gets on.
func Late(ctx context.Context) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < Grace {
		return true
	}
	stop, ok := ctx.Value(stopKey{}).(time.Time)
	return ok && !time.Now().Before(stop)
}

// BeforeLate returns a context that ends when ctx does, and, if ctx has a deadline, when
// an operation should begin no further step (see Late).
func BeforeLate(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, end.Add(-Grace))
	}
	return ctx, func() {}
}

// WithTime returns a context that ends after d, with a cause: the time that an operation has
// to move data.
func WithTime(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithValue(ctx, taskKey{}, ctx), d, cause)
}

// Task returns the context that WithTime was called with, which ends only when the operation is
// aborted: for steps that may take longer than moving data. Without WithTime it is ctx itself.
func Task(ctx context.Context) context.Context {
	if task, ok := ctx.Value(taskKey{}).(context.Context); ok {
		return task
	}
	return ctx
}

// WithCopied returns a context under which n counts the bytes that a copy reads and
// writes because they cannot be mapped.
func WithCopied(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, copiedKey{}, n)
}

// CountCopied counts n bytes that were read and written to copy them.
func CountCopied(ctx context.Context, n int64) {
	if count, ok := ctx.Value(copiedKey{}).(*atomic.Int64); ok {
		count.Add(n)
	}
}
