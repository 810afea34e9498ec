package backstore

import (
	"context"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// waitBudget waits until the limiter allows so many bytes.
func waitBudget(ctx context.Context, limiter *rate.Limiter, bytes int) error {
	for bytes > 0 {
		n := bytes
		if limiter.Limit() != rate.Inf {
			n = min(bytes, limiter.Burst())
		}
		if err := limiter.WaitN(ctx, n); err != nil {
			return err
		}
		bytes -= n
	}
	return nil
}

// Pace waits until background work of a number of operations and bytes may go on, or
// returns an error, which ends the work.
type Pace func(ctx context.Context, operations, bytes int64) error

// background is a limit of all background work together.
type background struct{ pace atomic.Pointer[Pace] }

// wait waits until bytes may be read or moved.
func (b *background) wait(ctx context.Context, bytes int) error {
	if pace := b.pace.Load(); pace != nil {
		return (*pace)(ctx, 1, int64(bytes))
	}
	return nil
}

// SetBackground limits cleaning and scrubs together, in addition to their own budgets.
// Cleaning on a full disk is not limited. nil: there is no such limit.
func (s *Store) SetBackground(pace Pace) {
	if pace == nil {
		s.background.pace.Store(nil)
		return
	}
	s.background.pace.Store(&pace)
}
