package offload

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
)

// SourceError is an error of the source of a Copy. Other errors of Copy are the
// destination's.
type SourceError struct{ Err error }

// Error implements error.
func (e *SourceError) Error() string { return fmt.Sprintf("copy source: %v", e.Err) }

// Unwrap returns the error of the source.
func (e *SourceError) Unwrap() error { return e.Err }

// Copy makes [to, to+length) of dst equal to [from, from+length) of src, in bytes.
// Between volumes of the engine's store it shares extents where from and to are equal
// modulo 4 KiB. A source in the store is copied as of one point in time, and ranges of
// one volume may overlap. Copy calls moved with the bytes of each step, which are
// contiguous from to on unless ranges of a volume outside the store overlap. It stops
// when ctx ends. A View with many pieces is copied in parts, each as of its own point
// in time.
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
			// The bytes after n are not pinned and would be overwritten before they are
			// read.
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
	mapped := e.mapper(dst, s)
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

// mapper is a volume to which bytes of a snapshot can be mapped.
type mapper interface {
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
}

// moving is a View on volumes outside the store: mapping to it moves bytes below its
// locks, with memory that is taken before.
type moving struct {
	engine *Engine
	view   View
}

// Map implements mapper.
func (m moving) Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (n int64, err error) {
	err = m.engine.WithMemory(ctx, m.view, func(ctx context.Context) (err error) {
		n, err = m.view.Map(ctx, dst, s, src, length)
		return err
	})
	return n, err
}

// filled is a volume that is no object of the store, to which a Foreign snapshot copies its
// bytes. Its locks are not held while another server is waited for.
type filled struct {
	blockdev.Volume
	engine *Engine
}

// Map implements mapper.
func (f filled) Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error) {
	return s.(Foreign).MapTo(ctx, f, dst, src, length)
}

// WriteAt implements blockdev.Volume, with the memory that a View needs below.
func (f filled) WriteAt(ctx context.Context, p []byte, off int64) error {
	return f.engine.WithMemory(ctx, f.Volume, func(ctx context.Context) error { return f.Volume.WriteAt(ctx, p, off) })
}

// Unmap implements blockdev.Volume, as WriteAt.
func (f filled) Unmap(ctx context.Context, off, length int64) error {
	return f.engine.WithMemory(ctx, f.Volume, func(ctx context.Context) error { return f.Volume.Unmap(ctx, off, length) })
}

// mapper returns v as a mapper of bytes of s, nil if they have to be copied to it.
func (e *Engine) mapper(v blockdev.Volume, s Snapshot) mapper {
	if _, foreign := s.(Foreign); foreign {
		if object, ok := e.store.Object(v); ok {
			return object
		}
		return filled{v, e}
	}
	if view, ok := v.(View); ok {
		if e.Shares(view) {
			return view
		}
		return moving{e, view}
	}
	if object, ok := e.store.Object(v); ok {
		return object
	}
	return nil
}

// MapTo is Object.Map for any volume but a View: to one outside the store it copies at
// most 1 MiB, and length has to be whole logical blocks. A View calls it with the memory
// that the engine took before Map.
func (e *Engine) MapTo(ctx context.Context, v blockdev.Volume, dst int64, s Snapshot, src, length int64) (int64, error) {
	if object, ok := e.store.Object(v); ok {
		return object.Map(ctx, dst, s, src, length)
	}
	return e.copyPiece(ctx, s, src, v, dst, length)
}

// Pace sizes the steps of a background copy, so that each takes about the same time:
// mapping does a terabyte in the time in which copying does a few megabytes. The zero
// value is ready for use.
type Pace struct{ step int64 }

// Bounds of a step in bytes, and how long it should take.
const (
	minStep  = 1 << 20
	maxStep  = 1 << 40
	stepTime = 50 * time.Millisecond
)

// Limit returns the context of a step, which asks to stop early where a step that was
// expected to map has to copy.
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

// copyPieces copies by reading and writing. Overlapping ranges of one volume are copied
// from the end that is read before it is overwritten.
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
	err := e.WithMemory(ctx, dst, func(ctx context.Context) error {
		return e.WithBuffer(ctx, func(ctx context.Context, buf []byte) error {
			p := buf[:n]
			if err := src.ReadAt(ctx, p, from); err != nil {
				return &SourceError{err}
			}
			return dst.WriteAt(ctx, p, to)
		})
	})
	if err != nil {
		return 0, err
	}
	blockdev.CountCopied(ctx, n)
	return n, nil
}
