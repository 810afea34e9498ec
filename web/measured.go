package web

import (
	"context"
	"time"

	"odx/admin"
)

// measured are figures of the store that take time in proportion to what it has. They are
// counted for one request at a time, and kept for a while, so that views take no more than
// a tenth of the time of the store.
type measured struct {
	store     counted[admin.StoreInfo]
	exclusive counted[map[string]int64]
}

func newMeasured(a admin.Administrator) measured {
	return measured{store: newCounted(a.StoreInfo), exclusive: newCounted(a.Exclusive)}
}

// minAge is how long a figure is kept at least.
const minAge = 2 * time.Second

// counted is a figure.
type counted[T any] struct {
	count func(context.Context) (T, error)
	turn  chan struct{} // has room for who counts
	last  *figure[T]
}

// figure is a figure, as it was at some time. It belongs to who counts.
type figure[T any] struct {
	value T
	until time.Time // it is kept
}

func newCounted[T any](count func(context.Context) (T, error)) counted[T] {
	return counted[T]{count: count, turn: make(chan struct{}, 1), last: &figure[T]{}}
}

// get returns the figure, or an error when ctx ends before it is there.
func (c *counted[T]) get(ctx context.Context) (T, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	began := time.Now()
	if began.Before(c.last.until) {
		return c.last.value, nil
	}
	value, err := c.count(ctx)
	if err == nil {
		took := time.Since(began)
		*c.last = figure[T]{value, time.Now().Add(max(minAge, 9*took))}
	}
	return value, err
}

// forget has the next figures counted again: something has changed.
func (m *measured) forget(ctx context.Context) {
	forget(ctx, &m.store)
	forget(ctx, &m.exclusive)
}

func forget[T any](ctx context.Context, c *counted[T]) {
	select {
	case c.turn <- struct{}{}:
		c.last.until = time.Time{}
		<-c.turn
	case <-ctx.Done():
	}
}
