package offload

import (
	"context"
	"sync"

	"odx/blockdev"
)

// Copies that move bytes have bounded memory, and views have locks. The order is memory,
// then locks: a task takes the memory before any lock of a View or of a volume below one,
// takes it once, for all that it calls, and returns it after it has released the locks. So
// a task that waits for memory holds no lock, and the tasks that hold memory get their
// locks. In the other order, a copy with memory that writes to a view and a task with the
// view's lock that needs memory would wait for each other.
//
// A caller that locks a view and changes the volumes below therefore calls WithMemory first
// and passes the context on, by which WithBuffer below finds the memory and does not wait.

const (
	// copyLength is how many bytes move at a time where they must be moved.
	copyLength = 1 << 20
	// pieceMemory is what a piece takes, in bytes: its buffer, and as much for what
	// volumes of whole blocks need below.
	pieceMemory = 2 * copyLength
	// defaultMemory bounds the buffers of an engine whose memory is not limited, in bytes.
	defaultMemory = 32 << 20
)

var copyBuffers = sync.Pool{New: func() any { return new([copyLength]byte) }}

// memoryError reports that all memory of copies is in use.
type memoryError struct{}

func (memoryError) Error() string { return "the memory for copies is in use by others" }

// Is makes it a blockdev.ErrBusy, after which initiators retry.
func (memoryError) Is(target error) bool { return target == blockdev.ErrBusy }

// LimitMemory bounds the memory of all copies for bytes that move, which are shared
// fairly between clients (WithClient). A copy waits for the memory of each piece of 1 MiB,
// so that it goes on however many there are.
func (e *Engine) LimitMemory(bytes int64) { e.memory.SetLimit(bytes) }

// Buffered returns the memory that copies hold for bytes that move.
func (e *Engine) Buffered() int64 { return e.memory.Held() }

type (
	clientKey struct{}
	holderKey struct{} // its value is the Engine whose memory is held
)

// WithClient returns a context whose copies are those of a client, an initiator for
// example. All others are of one client, the server itself.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// WithMemory calls fn with the memory that it needs to move bytes to and from v: a buffer,
// and one for each volume outside the store below v, as v may change them concurrently. If
// v shares (see Shares) or the caller has memory, it takes none. The wait ends, with a
// blockdev.ErrBusy, when the deadline of ctx leaves no time to use the memory
// (blockdev.BeforeLate). fn passes its context on.
func (e *Engine) WithMemory(ctx context.Context, v blockdev.Volume, fn func(ctx context.Context) error) error {
	if e.holds(ctx) {
		return fn(ctx)
	}
	n := e.outside(v)
	if n == 0 {
		return fn(ctx)
	}
	return e.hold(ctx, (1+n)*copyLength, fn)
}

// WithBuffer calls fn with 1 MiB of the memory of copies, which it takes as WithMemory
// does.
func (e *Engine) WithBuffer(ctx context.Context, fn func(ctx context.Context, buf []byte) error) error {
	return e.hold(ctx, pieceMemory, func(ctx context.Context) error {
		buf := copyBuffers.Get().(*[copyLength]byte)
		defer copyBuffers.Put(buf)
		return fn(ctx, buf[:])
	})
}

// holds reports whether the task of ctx has memory.
func (e *Engine) holds(ctx context.Context) bool { return ctx.Value(holderKey{}) == any(e) }

// hold calls fn with n bytes of memory, if its task has none.
func (e *Engine) hold(ctx context.Context, n int64, fn func(ctx context.Context) error) error {
	if e.holds(ctx) {
		return fn(ctx)
	}
	client, _ := ctx.Value(clientKey{}).(string)
	if err := e.take(ctx, client, n); err != nil {
		return err
	}
	defer e.memory.Release(client, n)
	return fn(context.WithValue(ctx, holderKey{}, e))
}

// take takes n bytes of memory before ctx is late.
func (e *Engine) take(ctx context.Context, client string, n int64) error {
	patient, cancel := blockdev.BeforeLate(ctx)
	defer cancel()
	err := e.memory.Take(patient, client, n)
	if err != nil && ctx.Err() == nil {
		return memoryError{}
	}
	return err
}

// outside returns how many volumes outside the store v is on, or is.
func (e *Engine) outside(v blockdev.Volume) (n int64) {
	if view, ok := v.(View); ok {
		for _, below := range view.Backing() {
			n += e.outside(below)
		}
		return n
	}
	if _, ok := e.store.Object(v); ok {
		return 0
	}
	return 1
}
