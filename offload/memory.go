package offload

import (
	"context"
	"sync"

	"odx/quota"
)

const (
	// copyLength is how many bytes move at a time where they must be moved.
	copyLength = 1 << 20
	// pieceMemory is what a piece takes, in bytes: its buffer, and as much for what views
	// and volumes of whole blocks need below.
	pieceMemory = 2 * copyLength
	// defaultMemory bounds the buffers of an engine whose memory is not limited, in bytes.
	defaultMemory = 32 << 20
)

var copyBuffers = sync.Pool{New: func() any { return new([copyLength]byte) }}

// LimitMemory bounds the memory of all copies for bytes that move, which are shared
// fairly between clients (WithClient). A copy takes a buffer for each piece of 1 MiB and
// waits for it, so that it goes on however many there are. It belongs to the set-up.
func (e *Engine) LimitMemory(bytes int64) { e.memory = quota.New(bytes) }

// Buffered returns the memory that copies hold for bytes that move.
func (e *Engine) Buffered() int64 { return e.memory.Held() }

type (
	clientKey struct{}
	holderKey struct{}
)

// WithClient returns a context whose copies are those of a client, an initiator for
// example. All others are of one client, the server itself.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// WithBuffer calls fn with 1 MiB of the memory of copies. fn passes its context on: a copy
// below, of a view that keeps what is overwritten for example, gets its buffer without a
// wait, because the one above would wait for itself.
func (e *Engine) WithBuffer(ctx context.Context, fn func(ctx context.Context, buf []byte) error) error {
	if ctx.Value(holderKey{}) == nil {
		client, _ := ctx.Value(clientKey{}).(string)
		if err := e.memory.Take(ctx, client, pieceMemory); err != nil {
			return err
		}
		defer e.memory.Release(client, pieceMemory)
		ctx = context.WithValue(ctx, holderKey{}, true)
	}
	buf := copyBuffers.Get().(*[copyLength]byte)
	defer copyBuffers.Put(buf)
	return fn(ctx, buf[:])
}
