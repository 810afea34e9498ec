package vhd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestManager_Operations: an operation for which others leave no room waits, and runs when
// one of them has ended.
func TestManager_Operations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		for range cap(b.running) {
			b.running <- struct{}{}
		}
		r := Request{Operation: Create, Destination: "a.vhdx", Size: 1 << 20}
		over, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := b.Do(over, r, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("an operation too many: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := b.Do(ctx, r, nil)
			done <- err
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		<-b.running
		if err := <-done; err != nil {
			t.Error(err)
		}
		for len(b.running) > 0 {
			<-b.running
		}
	})
}
