package backstore

import (
	"context"
	"sync"
)

const (
	// copyBuffer is the piece in which data that cannot be mapped is copied.
	copyBuffer = 256 << 10
	// maxCopyBuffers is how many such pieces there are at a time.
	maxCopyBuffers = 16
)

// copyBuffers is memory for data that cannot be mapped. A caller that finds none waits, first
// come, first served, for another one to return its piece.
type copyBuffers struct {
	free    sync.Pool // of *[copyBuffer]byte
	permits chan struct{}
}

func newCopyBuffers() copyBuffers {
	return copyBuffers{
		free:    sync.Pool{New: func() any { return new([copyBuffer]byte) }},
		permits: make(chan struct{}, maxCopyBuffers),
	}
}

func (c *copyBuffers) take(ctx context.Context) (*[copyBuffer]byte, error) {
	select {
	case c.permits <- struct{}{}:
		return c.free.Get().(*[copyBuffer]byte), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *copyBuffers) put(b *[copyBuffer]byte) {
	c.free.Put(b)
	<-c.permits
}
