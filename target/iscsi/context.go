package iscsi

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// taskContext is the context that a command runs under. It ends when the
// command is aborted. It is part of a task and used again with it, so a command
// that nobody aborts and that never asks for Done allocates nothing.
//
// It must not be used after Execute returned.
type taskContext struct {
	canceled atomic.Bool

	mu    sync.Mutex
	done  chan struct{} // made by the first Done, guarded by mu
	after []*afterFunc  // guarded by mu
}

// afterFunc is a function to call when the context ends.
type afterFunc struct{ call func() }

var _ context.Context = (*taskContext)(nil)

func (*taskContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*taskContext) Value(any) any               { return nil }

func (c *taskContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.canceled.Load() {
			close(c.done)
		}
	}
	return c.done
}

func (c *taskContext) Err() error {
	if c.canceled.Load() {
		return context.Canceled
	}
	return nil
}

// AfterFunc calls f on a goroutine of its own when the context ends, unless stop
// is called before: it reports whether f will not be called. Package context uses
// it for contexts that are made of this one, which cost no goroutine so.
func (c *taskContext) AfterFunc(f func()) (stop func() bool) {
	a := &afterFunc{f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled.Load() {
		go f()
		return func() bool { return false }
	}
	c.after = append(c.after, a)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		before := len(c.after)
		c.after = slices.DeleteFunc(c.after, func(other *afterFunc) bool { return other == a })
		return len(c.after) < before
	}
}

func (c *taskContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled.Swap(true) {
		return
	}
	if c.done != nil {
		close(c.done)
	}
	for _, a := range c.after {
		go a.call()
	}
	c.after = nil
}

// reset makes the context fresh for the next command.
func (c *taskContext) reset() {
	if c.canceled.Load() {
		c.mu.Lock()
		c.done, c.after = nil, nil
		c.canceled.Store(false)
		c.mu.Unlock()
	}
}
