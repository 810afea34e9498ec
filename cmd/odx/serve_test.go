package main

import (
	"errors"
	"testing"
	"time"
)

// TestStopIsBounded: a store whose disk does not answer keeps no process.
func TestStopIsBounded(t *testing.T) {
	stalled := make(chan struct{})
	defer close(stalled)
	if err := within(time.Millisecond, func() error { <-stalled; return nil }); !errors.Is(err, errStopLimit) {
		t.Errorf("stalled: %v", err)
	}
	broken := errors.New("broken")
	if err := within(time.Hour, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a stop that ends: %v", err)
	}
}
