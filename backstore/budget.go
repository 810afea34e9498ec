package backstore

import (
	"context"

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
