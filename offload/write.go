package offload

import (
	"context"
	"time"

	"odx/blockdev"
)

// unmapLength is how many bytes are unmapped between two checks of the time.
const unmapLength = 1 << 30

// Destination is the destination of a Write.
type Destination struct {
	Volume blockdev.Volume
	// BlockLength is the logical block length in bytes. Ranges are whole
	// blocks, and the last block that the source's bytes fill only in part ends
	// in zeros.
	BlockLength int
}

// Write makes ranges of dst equal to the bytes of s from offset on and returns how many
// bytes it did: whole blocks, contiguous from the start of the first range. Fewer than
// asked for without an error means that the bytes of s ended or, then stopped is true,
// that ctx asked to stop. With moved, which is called with the bytes of each step, the
// write does not stop early.
//
// An error for a range that is not inside dst wraps blockdev.ErrRange.
func (e *Engine) Write(ctx context.Context, s Snapshot, offset int64, dst Destination, ranges []blockdev.Range, moved func(n int64)) (n int64, stopped bool, err error) {
	if _, err := blockdev.Sum(ranges, dst.Volume.Size(), dst.BlockLength); err != nil {
		return 0, false, err
	}
	w := writer{ctx: ctx, engine: e, dst: dst.Volume, mapper: e.mapper(dst.Volume, s), block: int64(dst.BlockLength), moved: moved, src: s, pos: offset}
	n, err = w.write(ranges)
	return n, w.stopped, err
}

// Zero is Write from a source of zeros without end.
func Zero(ctx context.Context, dst Destination, ranges []blockdev.Range, moved func(n int64)) (int64, error) {
	if _, err := blockdev.Sum(ranges, dst.Volume.Size(), dst.BlockLength); err != nil {
		return 0, err
	}
	w := writer{ctx: ctx, dst: dst.Volume, block: int64(dst.BlockLength), moved: moved}
	return w.zero(ranges)
}

// writer is a Write in progress.
type writer struct {
	ctx    context.Context
	engine *Engine
	dst    blockdev.Volume
	mapper mapper // dst, if bytes can be mapped to it
	block  int64
	moved  func(n int64) // nil: the write stops when it is late
	pace   Pace

	src     Snapshot
	pos     int64 // next byte of src
	stopped bool  // stopped before the source or the ranges ended
}

func (w *writer) write(ranges []blockdev.Range) (int64, error) {
	var done int64
	for _, r := range ranges {
		if done > 0 && r.Length > 0 && w.late() {
			w.stopped = true
			break
		}
		n, err := w.writeRange(r)
		done += n
		if err != nil || n < r.Length {
			return done / w.block * w.block, err
		}
	}
	return done / w.block * w.block, nil
}

// writeRange fills r from w.pos on, until the source or the time ends.
func (w *writer) writeRange(r blockdev.Range) (int64, error) {
	have := min(r.Length, w.src.Length()-w.pos)
	whole := have / w.block * w.block
	var done int64
	for done < whole {
		n, err := w.copySome(r.Offset+done, whole-done)
		done, w.pos = done+n, w.pos+n
		if err != nil {
			return done, err
		}
		if done < whole && (n == 0 || w.late()) {
			w.stopped = true
			return done, nil
		}
	}
	if have == whole {
		return done, nil
	}
	// The last bytes fill part of a block.
	last := make([]byte, w.block)
	if err := w.src.ReadAt(w.ctx, last[:have-whole], w.pos); err != nil {
		return done, err
	}
	if err := w.dst.WriteAt(w.ctx, last, r.Offset+done); err != nil {
		return done, err
	}
	blockdev.CountCopied(w.ctx, w.block)
	w.pos += have - whole
	w.report(w.block)
	return done + w.block, nil
}

// late reports whether the write has to stop.
func (w *writer) late() bool { return w.moved == nil && blockdev.Late(w.ctx) }

// report calls moved with n bytes.
func (w *writer) report(n int64) {
	if w.moved != nil && n > 0 {
		w.moved(n)
	}
}

// copySome copies up to length bytes from w.pos to off of the destination.
func (w *writer) copySome(off, length int64) (n int64, err error) {
	ctx := w.ctx
	if w.moved != nil {
		if err := w.ctx.Err(); err != nil {
			return 0, err
		}
		// Steps of whole blocks, so that moved is called with each.
		length = min(length, max(w.pace.Step()/w.block, 1)*w.block)
		ctx = w.pace.Limit(ctx)
		began := time.Now()
		defer func() {
			w.pace.Took(time.Since(began))
			w.report(n)
		}()
	}
	if w.mapper != nil {
		return w.mapper.Map(ctx, off, w.src, w.pos, length)
	}
	return w.engine.copyPiece(w.ctx, w.src, w.pos, w.dst, off, length)
}

// zero unmaps ranges.
func (w *writer) zero(ranges []blockdev.Range) (int64, error) {
	var done int64
	for _, r := range ranges {
		for r.Length > 0 {
			if done > 0 && w.late() {
				return done, nil
			}
			n := min(r.Length, unmapLength)
			if err := w.dst.Unmap(w.ctx, r.Offset, n); err != nil {
				return done, err
			}
			w.report(n)
			r.Offset, r.Length, done = r.Offset+n, r.Length-n, done+n
		}
	}
	return done, nil
}
