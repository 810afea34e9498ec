package offload

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
)

// SourceError is an error of Copy that came from its source. Any other came
// from the destination.
type SourceError struct{ Err error }

// Error implements error.
func (e *SourceError) Error() string { return fmt.Sprintf("copy source: %v", e.Err) }

// Unwrap returns the error of the source.
func (e *SourceError) Unwrap() error { return e.Err }

// Copy makes [to, to+length) of dst equal to [from, from+length) of src, in
// bytes. Between volumes of the engine's store it shares what lies alike to 4 KiB
// blocks; from such a volume it copies what is there at one point in time, and ranges
// of one volume may overlap. It calls moved with the bytes of
// each step, which are contiguous from to on unless ranges of a volume outside
// the store overlap. It stops when ctx ends. From a View with many pieces it copies
// what is there at several points in time, one after the other.
func (e *Engine) Copy(ctx context.Context, src blockdev.Volume, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	if length <= 0 {
		return nil
	}
	if !e.Shares(src) {
		return e.copyPieces(ctx, src, from, dst, to, length, moved)
	}
	for length > 0 {
		s, err := e.Snapshot(ctx, src, []blockdev.Range{{Offset: from, Length: length}}, 1)
		if err != nil {
			return &SourceError{err}
		}
		n := s.Length()
		if n < length && src == dst && to > from && to < from+length {
			// What is not held yet would be overwritten before it is read.
			s.Release()
			return e.copyPieces(ctx, src, from, dst, to, length, moved)
		}
		err = e.copyAll(ctx, s, dst, to, moved)
		s.Release()
		if err != nil {
			return err
		}
		from, to, length = from+n, to+n, length-n
	}
	return nil
}

// copyAll copies all of s to byte to of dst.
func (e *Engine) copyAll(ctx context.Context, s Snapshot, dst blockdev.Volume, to int64, moved func(n int64)) error {
	return e.CopySnapshot(ctx, s, 0, dst, to, s.Length(), moved)
}

// CopySnapshot copies length bytes of s from byte from on to byte to of dst, and calls
// moved as Copy does.
func (e *Engine) CopySnapshot(ctx context.Context, s Snapshot, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	mapped := e.mapper(dst)
	if mapped == nil {
		return e.copyPieces(ctx, s, from, dst, to, length, moved)
	}
	var pace Pace
	for done := int64(0); done < length; {
		began := time.Now()
		n, err := mapped.Map(pace.Limit(ctx), to+done, s, from+done, min(length-done, pace.Step()))
		pace.Took(time.Since(began))
		if n > 0 {
			moved(n)
		}
		if done += n; err != nil {
			return err
		}
	}
	return nil
}

// mapper is what bytes of a snapshot can be mapped to.
type mapper interface {
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
}

// mapper returns v as one, nil if its bytes have to be copied.
func (e *Engine) mapper(v blockdev.Volume) mapper {
	if view, ok := v.(View); ok {
		return view
	}
	if space, ok := e.store.AddressSpace(v); ok {
		return space
	}
	return nil
}

// MapTo is AddressSpace.Map for any volume but a View: to one outside the store it
// copies at most 1 MiB, of which length has to be whole logical blocks.
func (e *Engine) MapTo(ctx context.Context, v blockdev.Volume, dst int64, s Snapshot, src, length int64) (int64, error) {
	if space, ok := e.store.AddressSpace(v); ok {
		return space.Map(ctx, dst, s, src, length)
	}
	return e.copyPiece(ctx, s, src, v, dst, length)
}

// Pace sizes the steps of a copy that nobody waits for, so that each one shows
// some progress: mapping does a terabyte in the time in which copying does a few
// megabytes. The zero value is ready.
type Pace struct{ step int64 }

// Bounds of a step in bytes, and how long it should take.
const (
	minStep  = 1 << 20
	maxStep  = 1 << 40
	stepTime = 50 * time.Millisecond
)

// Limit returns the context of a step: it ends early where a part of it, unlike those
// before, has to be copied.
func (p *Pace) Limit(ctx context.Context) context.Context {
	return blockdev.StopAfter(ctx, 2*stepTime)
}

// Step returns how many bytes to do next.
func (p *Pace) Step() int64 { return max(p.step, minStep) }

// Took adapts the next step to how long the last one took.
func (p *Pace) Took(d time.Duration) {
	switch {
	case d < stepTime/2:
		p.step = min(p.Step()*2, maxStep)
	case d > stepTime*2:
		p.step = p.Step() / 2
	}
}

type reader interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// copyPieces copies by reading and writing. Within one volume it begins at the
// end that is not overwritten before it is read.
func (e *Engine) copyPieces(ctx context.Context, src reader, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	backwards := src == reader(dst) && to > from && to < from+length
	for done := int64(0); done < length; {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := done
		if backwards {
			at = length - done - min(length-done, copyLength)
		}
		n, err := e.copyPiece(ctx, src, from+at, dst, to+at, length-done)
		if err != nil {
			return err
		}
		done += n
		moved(n)
	}
	return nil
}

// copyPiece copies the first copyLength of length bytes by reading and writing, and
// returns how many. An error of the source is a SourceError.
func (e *Engine) copyPiece(ctx context.Context, src reader, from int64, dst blockdev.Volume, to, length int64) (int64, error) {
	n := min(length, copyLength)
	err := e.WithBuffer(ctx, func(ctx context.Context, buf []byte) error {
		p := buf[:n]
		if err := src.ReadAt(ctx, p, from); err != nil {
			return &SourceError{err}
		}
		return dst.WriteAt(ctx, p, to)
	})
	if err != nil {
		return 0, err
	}
	blockdev.CountCopied(ctx, n)
	return n, nil
}
