package tokens

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
// bytes, without a token. Between volumes of the manager's store it shares what
// lies alike to 4 KiB blocks; from such a volume it copies what is there at one
// moment, and ranges of one volume may overlap. It calls moved with the bytes of
// each step, which are contiguous from to on unless ranges of a volume outside
// the store overlap. It stops when ctx ends. From a View with many pieces it copies
// what is there at several moments, one after the other.
func (m *Manager) Copy(ctx context.Context, src blockdev.Volume, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	if length <= 0 {
		return nil
	}
	if !m.Shares(src) {
		return copyPieces(ctx, src, from, dst, to, length, moved)
	}
	for length > 0 {
		s, err := m.momentOf(ctx, Source{Volume: src, LU: LU{BlockLength: 1}}, []blockdev.Range{{Offset: from, Length: length}})
		if err != nil {
			return &SourceError{err}
		}
		n := s.Length()
		if n < length && src == dst && to > from && to < from+length {
			// What is not held yet would be overwritten before it is read.
			s.Release()
			return copyPieces(ctx, src, from, dst, to, length, moved)
		}
		err = m.copyMoment(ctx, s, dst, to, moved)
		s.Release()
		if err != nil {
			return err
		}
		from, to, length = from+n, to+n, length-n
	}
	return nil
}

// copyMoment copies all of s to byte to of dst.
func (m *Manager) copyMoment(ctx context.Context, s Snapshot, dst blockdev.Volume, to int64, moved func(n int64)) error {
	return m.copySnapshot(ctx, s, 0, dst, to, s.Length(), moved)
}

// copySnapshot copies length bytes of s from byte from on to byte to of dst.
func (m *Manager) copySnapshot(ctx context.Context, s Snapshot, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	target := m.mapTarget(dst)
	if target == nil {
		return copyPieces(ctx, s, from, dst, to, length, moved)
	}
	var pace Pace
	for done := int64(0); done < length; {
		began := time.Now()
		n, err := target.Map(pace.Limit(ctx), to+done, s, from+done, min(length-done, pace.Step()))
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
func copyPieces(ctx context.Context, src reader, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	buf := copyBuffers.Get().(*[copyLength]byte)
	defer copyBuffers.Put(buf)
	backwards := src == reader(dst) && to > from && to < from+length
	for done := int64(0); done < length; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(length-done, copyLength)]
		at := done
		if backwards {
			at = length - done - int64(len(p))
		}
		if err := src.ReadAt(ctx, p, from+at); err != nil {
			return &SourceError{err}
		}
		if err := dst.WriteAt(ctx, p, to+at); err != nil {
			return err
		}
		done += int64(len(p))
		blockdev.CountCopied(ctx, int64(len(p)))
		moved(int64(len(p)))
	}
	return nil
}
