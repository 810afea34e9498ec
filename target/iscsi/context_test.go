package iscsi

import (
	"context"
	"errors"
	"testing"
)

// A derived context ends with the command's context, and leaves no reference if it ends
// first.
func TestTaskContext_AfterFunc(t *testing.T) {
	var c taskContext
	early, cancel := context.WithCancelCause(&c)
	cancel(errors.New("done"))
	if len(c.after) != 0 {
		t.Error("the context refers to one that has ended")
	}
	child, stop := context.WithCancel(&c)
	defer stop()
	called := make(chan struct{})
	context.AfterFunc(&c, func() { close(called) })
	notCalled := context.AfterFunc(&c, func() { t.Error("called after stop") })
	if !notCalled() || notCalled() {
		t.Error("stop: want true, then false")
	}
	c.cancel()
	c.cancel()
	<-child.Done()
	<-called
	if context.Cause(child) != context.Canceled || context.Cause(early) == context.Canceled {
		t.Errorf("causes %v, %v", context.Cause(child), context.Cause(early))
	}
	again := make(chan struct{})
	stopAgain := c.AfterFunc(func() { close(again) })
	<-again
	if stopAgain() {
		t.Error("stop returned true after the call")
	}
	c.reset()
	if c.Err() != nil || len(c.after) != 0 {
		t.Error("canceled after reset")
	}
}
