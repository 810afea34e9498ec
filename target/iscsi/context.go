package iscsi

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// taskContext is the context of a command. It ends when the command is aborted, and does
// so for good: contexts derived from it may look at it later. One that has not ended is
// reused with its task, and allocates nothing for a command that does not call Done.
//
// One that has not ended must not be used after Execute returns.
type taskContext struct {
	canceled atomic.Bool

	mu    sync.Mutex
	done  chan struct{} // created by the first Done; guarded by mu
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

// AfterFunc calls f in its own goroutine when the context ends, unless stop is called
// first; stop reports whether it prevented the call. Package context uses AfterFunc to
// derive contexts without a goroutine.
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

// next returns the context of the next command: c, unless it has ended.
func (c *taskContext) next() *taskContext {
	if c.canceled.Load() {
		return &taskContext{}
	}
	return c
}
