package iscsi

import (
	"context"
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

	mu   sync.Mutex
	done chan struct{} // made by the first Done, guarded by mu
}

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

func (c *taskContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.canceled.Swap(true) && c.done != nil {
		close(c.done)
	}
}

// reset makes the context fresh for the next command.
func (c *taskContext) reset() {
	if c.canceled.Load() {
		c.mu.Lock()
		c.done = nil
		c.canceled.Store(false)
		c.mu.Unlock()
	}
}
