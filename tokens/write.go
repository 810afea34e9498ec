package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/blockdev"
)

// unmapLength is how many bytes are unmapped at a time, so that a call can
// keep to its time.
const unmapLength = 1 << 30

// Destination is what an offload write puts its bytes into.
type Destination struct {
	Volume blockdev.Volume
	// BlockLength is the logical block length in bytes. Ranges are whole
	// blocks, and the last block that the token's bytes fill only in part ends
	// in zeros.
	BlockLength int
}

// WriteOptions are the choices of an offload write. The zero value is valid.
type WriteOptions struct {
	// Completion says what becomes of the token afterwards.
	Completion Completion
	// Requester is who asks. Whether it may write to the destination is for the
	// caller to check.
	Requester Requester
	// Moved, if set, is called with the bytes of each step, and the write goes on
	// to its end however long that takes: one use of the token, whose end is a
	// matter of policy.
	Moved func(n int64)
}

// Completion is what an offload write does with its token in the end.
type Completion uint8

const (
	// KeepToken leaves the token for others.
	KeepToken Completion = iota
	// DeleteToken deletes it once there is nothing left to write: when every
	// range was written or the token's bytes ended. A call that did less,
	// or failed, keeps it, because its caller will come back.
	DeleteToken
)

// OffloadWrite makes ranges of dst equal to the token's bytes from offset on
// and returns how many bytes it did: whole blocks, contiguous from the start
// of the first range. Fewer than asked for without an error means that the
// token's bytes ended or that the call's time did; the caller goes on from
// there with another call. With an error, the bytes done before it.
//
// Errors: those that refuse a token, ErrOffset, blockdev.ErrRange, ErrAccess, and those of
// the store and the destination.
func (m *Manager) OffloadWrite(ctx context.Context, t *Token, offset int64, dst Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	n, err := m.offloadWrite(ctx, t, offset, dst, ranges, o)
	if err != nil && n == 0 {
		m.refused(err)
	}
	return n, err
}

func (m *Manager) offloadWrite(ctx context.Context, t *Token, offset int64, dst Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	if err := t.checkLength(); err != nil {
		return 0, err
	}
	w := writer{ctx: ctx, dst: dst.Volume, block: int64(dst.BlockLength), moved: o.Moved}
	if _, err := sumRanges(dst.Volume.Size(), dst.BlockLength, ranges); err != nil {
		return 0, err
	}
	if t.isZero() {
		return w.zero(ranges)
	}
	u, err := m.acquire(ctx, t, o.Requester)
	if err != nil {
		return 0, err
	}
	defer m.release(ctx, u)
	if offset < 0 || offset >= u.snapshot.Length() {
		return 0, fmt.Errorf("%w: offset %d, token of %d bytes", ErrOffset, offset, u.snapshot.Length())
	}
	w.ctx, w.src, w.pos = u.ctx, u.snapshot, offset
	w.target = m.mapTarget(dst.Volume)
	n, err := w.write(ranges)
	if err != nil || o.Completion == KeepToken || w.stopped {
		return n, u.err(err)
	}
	if err := m.end(ctx, u.entry, Deleted); err != nil && !errors.Is(err, errDying) {
		return n, err
	}
	return n, nil
}

// writer is one offload write under way.
type writer struct {
	ctx    context.Context
	dst    blockdev.Volume
	target mapTarget // dst, if bytes can be mapped to it
	block  int64
	moved  func(n int64) // nil: the write ends when it is late
	pace   Pace

	src     Snapshot
	pos     int64 // next byte of src
	stopped bool  // less was done than could be
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

// writeRange fills r from w.pos on, as far as the source and the time go.
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
	// The token's last bytes fill part of a block.
	last := make([]byte, w.block)
	if err := w.src.ReadAt(w.ctx, last[:have-whole], w.pos); err != nil {
		return done, err
	}
	if err := w.dst.WriteAt(w.ctx, last, r.Offset+done); err != nil {
		return done, err
	}
	blockdev.CountCopied(w.ctx, w.block)
	w.pos += have - whole
	w.tell(w.block)
	return done + w.block, nil
}

// late reports whether the write has gone on for long enough.
func (w *writer) late() bool { return w.moved == nil && blockdev.Late(w.ctx) }

// tell tells of n bytes written.
func (w *writer) tell(n int64) {
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
		// Steps of whole blocks, so that each is seen.
		length = min(length, max(w.pace.Step()/w.block, 1)*w.block)
		ctx = w.pace.Limit(ctx)
		began := time.Now()
		defer func() {
			w.pace.Took(time.Since(began))
			w.tell(n)
		}()
	}
	if w.target != nil {
		return w.target.Map(ctx, off, w.src, w.pos, length)
	}
	buf := copyBuffers.Get().(*[copyLength]byte)
	defer copyBuffers.Put(buf)
	p := buf[:min(length, copyLength)]
	if err := w.src.ReadAt(w.ctx, p, w.pos); err != nil {
		return 0, err
	}
	if err := w.dst.WriteAt(w.ctx, p, off); err != nil {
		return 0, err
	}
	blockdev.CountCopied(w.ctx, int64(len(p)))
	return int64(len(p)), nil
}

// zero is the write with a block device zero ROD token.
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
			w.tell(n)
			r.Offset, r.Length, done = r.Offset+n, r.Length-n, done+n
		}
	}
	return done, nil
}
