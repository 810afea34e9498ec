package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// reasonStream is why a stream is not copied by token.
const reasonStream = "a stream takes no tokens"

// Growable is the Disk whose size is what is written to it.
type Growable interface {
	// Resize sets the size in bytes.
	Resize(ctx context.Context, size int64) error
}

// Send writes all bytes of a disk to w, in order.
func Send(ctx context.Context, w io.Writer, src Disk) (Result, error) {
	start := time.Now()
	r := Result{Reason: reasonStream}
	buf := make([]byte, chunk)
	for r.Bytes < src.Size() {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		p := buf[:min(chunk, src.Size()-r.Bytes)]
		if err := src.ReadAt(ctx, p, r.Bytes); err != nil {
			return r, fmt.Errorf("read %d bytes at %d: %w", len(p), r.Bytes, err)
		}
		n, err := interruptible(ctx, func() (int, error) { return w.Write(p) })
		r.Bytes += int64(n)
		r.MovedBytes += int64(n)
		if err != nil {
			return r, fmt.Errorf("write: %w", err)
		}
	}
	r.Duration = time.Since(start)
	return r, nil
}

// Receive makes the beginning of dst equal to all bytes that come from r, durably, and
// finishes what is a Finisher.
// A disk that is Growable gets the length of the stream; any other has to be large
// enough, and what is left of its last block becomes zeros.
func Receive(ctx context.Context, dst Disk, r io.Reader) (Result, error) {
	start := time.Now()
	result := Result{Reason: reasonStream}
	room := room{disk: dst}
	buf := make([]byte, chunk)
	for {
		n, err := interruptible(ctx, func() (int, error) { return io.ReadFull(r, buf) })
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		if n > 0 {
			werr := room.make(ctx, result.Bytes+int64(n))
			if werr == nil {
				werr = receiveChunk(ctx, dst, buf[:n], &result)
			}
			if werr != nil {
				return result, werr
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return result, fmt.Errorf("read the stream: %w", err)
		}
	}
	err := room.cut(ctx, result.Bytes)
	if err == nil {
		err = dst.Flush(ctx)
	}
	if f, ok := dst.(Finisher); ok && err == nil {
		err = f.Finish(ctx)
	}
	result.Duration = time.Since(start)
	return result, err
}

// room makes a disk that is Growable grow, in steps that double: each one is
// durable, and takes as long as that does.
type room struct{ disk Disk }

func (r room) make(ctx context.Context, size int64) error {
	grow, ok := r.disk.(Growable)
	if !ok || size <= r.disk.Size() {
		return nil
	}
	return grow.Resize(ctx, max(size, 2*r.disk.Size(), 64*chunk))
}

// cut gives it the size that it has to have in the end.
func (r room) cut(ctx context.Context, size int64) error {
	grow, ok := r.disk.(Growable)
	if !ok || size == r.disk.Size() {
		return nil
	}
	return grow.Resize(ctx, size)
}

// receiveChunk writes what came, filled up to whole blocks.
func receiveChunk(ctx context.Context, dst Disk, p []byte, r *Result) error {
	block := dst.BlockLength()
	whole := (len(p) + block - 1) / block * block
	if r.Bytes+int64(whole) > dst.Size() {
		return fmt.Errorf("%w: the stream has more than its %d bytes", ErrTooSmall, dst.Size())
	}
	if bytes.Equal(p, zeros[:len(p)]) {
		if err := dst.Zero(ctx, r.Bytes, int64(whole)); err != nil {
			return fmt.Errorf("make %d bytes of zeros at %d: %w", whole, r.Bytes, err)
		}
		r.Bytes += int64(len(p))
		return nil
	}
	if whole > len(p) {
		p = append(p[:len(p):len(p)], make([]byte, whole-len(p))...)
	}
	if err := dst.WriteAt(ctx, p, r.Bytes); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(p), r.Bytes, err)
	}
	r.Bytes += int64(len(p))
	r.MovedBytes += int64(len(p))
	return nil
}

// interruptible returns what do returns, or as soon as ctx ends: a read or write of
// a pipe cannot be ended, so that one may be left behind then, until the process
// ends.
func interruptible(ctx context.Context, do func() (int, error)) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := do()
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
