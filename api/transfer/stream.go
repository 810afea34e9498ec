package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// reasonStream is the Reason for a stream.
const reasonStream = "a stream takes no tokens"

// Growable is a Disk that grows with the data written to it.
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

// Receive writes all bytes of r to the beginning of dst, durably, and finishes a
// Finisher. A Growable is resized to the length of the stream. Other disks must be
// large enough; the rest of the last block becomes zeros.
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
	err := room.truncate(ctx, result.Bytes)
	if err == nil {
		err = dst.Flush(ctx)
	}
	if f, ok := dst.(Finisher); ok && err == nil {
		err = f.Finish(ctx)
	}
	result.Duration = time.Since(start)
	return result, err
}

// room grows a Growable in doubling steps, since each step waits until it is durable.
type room struct{ disk Disk }

func (r room) make(ctx context.Context, size int64) error {
	grow, ok := r.disk.(Growable)
	if !ok || size <= r.disk.Size() {
		return nil
	}
	return grow.Resize(ctx, max(size, 2*r.disk.Size(), 64*chunk))
}

// truncate sets the final size.
func (r room) truncate(ctx context.Context, size int64) error {
	grow, ok := r.disk.(Growable)
	if !ok || size == r.disk.Size() {
		return nil
	}
	return grow.Resize(ctx, size)
}

// receiveChunk writes received bytes, padded with zeros to whole blocks.
func receiveChunk(ctx context.Context, dst Disk, p []byte, r *Result) error {
	block := dst.BlockLength()
	whole := (len(p) + block - 1) / block * block
	if r.Bytes+int64(whole) > dst.Size() {
		return fmt.Errorf("%w: the stream has more than its %d bytes", ErrTooSmall, dst.Size())
	}
	if bytes.Equal(p, zeros[:len(p)]) {
		if err := dst.Zero(ctx, r.Bytes, int64(whole)); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", whole, r.Bytes, err)
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

// OpenPipe opens a named pipe, which waits for the program at its other end, or until
// ctx ends.
func OpenPipe(ctx context.Context, name string, flag int) (*os.File, error) {
	f, err := interruptible(ctx, func() (*os.File, error) { return os.OpenFile(name, flag, 0) })
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%s: no program has opened the other end of the pipe: %w", name, err)
	}
	return f, err
}

// interruptible returns the result of do, or returns as soon as ctx ends. The open, read
// or write of a pipe cannot be canceled, so do may continue until the process ends.
func interruptible[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
