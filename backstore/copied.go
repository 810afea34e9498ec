package backstore

import (
	"context"
	"sync/atomic"
)

type copiedKey struct{}

// WithCopied returns a context under which n counts the bytes that a copy reads and
// writes, because they cannot be mapped: those of Map, and those of a caller of
// CountCopied.
func WithCopied(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, copiedKey{}, n)
}

// CountCopied counts n bytes that were read and written to copy them.
func CountCopied(ctx context.Context, n int64) {
	if count, ok := ctx.Value(copiedKey{}).(*atomic.Int64); ok {
		count.Add(n)
	}
}
