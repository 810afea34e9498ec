package view

import (
	"errors"
	"testing"
	"time"

	"odx/blockdev"
)

// A caller that needs the gate alone does not wait without end for a write that stalls,
// nor do the later writes.
func TestGate_MaxWait(t *testing.T) {
	ctx := t.Context()
	g := NewGate()
	g.maxWait = time.Millisecond
	if err := g.enter(ctx); err != nil { // the write that stalls
		t.Fatal(err)
	}
	if err := g.shut(ctx); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("shut: %v, want ErrBusy", err)
	}
	if err := g.enter(ctx); err != nil {
		t.Errorf("a later write: %v", err)
	}
	g.leave()
	g.leave()
	g.maxWait = time.Hour
	if err := g.shut(ctx); err != nil {
		t.Errorf("after the write: %v", err)
	}
	g.open()
}
