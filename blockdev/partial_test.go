package blockdev

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLate(t *testing.T) {
	deadline := func(d time.Duration) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, d)
			t.Cleanup(cancel)
			return ctx
		}
	}
	stop := func(d time.Duration) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context { return StopAfter(ctx, d) }
	}
	for _, tt := range []struct {
		name  string
		with  []func(context.Context) context.Context
		after time.Duration
		want  bool
	}{
		{"no limit", nil, time.Hour, false},
		{"deadline far off", []func(context.Context) context.Context{deadline(time.Second)}, 0, false},
		{"deadline within the grace", []func(context.Context) context.Context{deadline(time.Second)}, time.Second - Grace + 1, true},
		{"before the stop", []func(context.Context) context.Context{stop(time.Second)}, time.Second - 1, false},
		{"at the stop", []func(context.Context) context.Context{stop(time.Second)}, time.Second, true},
		{"the earlier stop is outside", []func(context.Context) context.Context{stop(time.Second), stop(time.Hour)}, time.Second, true},
		{"the earlier stop is inside", []func(context.Context) context.Context{stop(time.Hour), stop(time.Second)}, time.Second, true},
		{"no time at all", []func(context.Context) context.Context{stop(0)}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				for _, with := range tt.with {
					ctx = with(ctx)
				}
				time.Sleep(tt.after)
				if got := Late(ctx); got != tt.want {
					t.Errorf("Late is %v after %v", got, tt.after)
				}
			})
		})
	}
}

func TestCountCopied(t *testing.T) {
	var n atomic.Int64
	CountCopied(t.Context(), 5) // not counted
	ctx := WithCopied(t.Context(), &n)
	CountCopied(ctx, 3)
	CountCopied(StopAfter(ctx, 0), 4)
	if n.Load() != 7 {
		t.Errorf("%d bytes, want 7", n.Load())
	}
}
