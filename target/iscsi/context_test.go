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
	next := c.next()
	if next.Err() != nil || c.Err() == nil {
		t.Errorf("the next context says %v, the one that has ended %v", next.Err(), c.Err())
	}
	if next.next() != next {
		t.Error("a context that has not ended is not reused")
	}
}

// A context that was derived learns that the command was aborted, even if the task is
// reused before.
func TestTaskContext_Reuse(t *testing.T) {
	c := &taskContext{}
	reused, told := make(chan struct{}), make(chan error)
	c.AfterFunc(func() { // as package context does for a derived context
		<-reused
		told <- c.Err()
	})
	c.cancel()
	c.next()
	close(reused)
	if err := <-told; err != context.Canceled {
		t.Errorf("the end of the command is told as %v", err)
	}
}
