package backstore

import (
	"context"
	"errors"
	"testing"
)

// TestCopyBuffers: there are no more than there may be, and who waits gets the next one.
func TestCopyBuffers(t *testing.T) {
	c := newCopyBuffers()
	var held []*[copyBuffer]byte
	for range maxCopyBuffers {
		b, err := c.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, b)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.take(over); !errors.Is(err, context.Canceled) {
		t.Fatalf("one more: %v", err)
	}
	next := make(chan error)
	go func() {
		_, err := c.take(t.Context())
		next <- err
	}()
	c.put(held[0])
	if err := <-next; err != nil {
		t.Error(err)
	}
}
