package tokens

import (
	"context"
	"errors"
	"fmt"

	"odx/blockdev"
	"odx/offload"
)

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
func (m *Manager) OffloadWrite(ctx context.Context, t *Token, offset int64, dst offload.Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	n, err := m.offloadWrite(ctx, t, offset, dst, ranges, o)
	if err != nil && n == 0 {
		m.refused(err)
	}
	return n, err
}

func (m *Manager) offloadWrite(ctx context.Context, t *Token, offset int64, dst offload.Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	if err := t.checkLength(); err != nil {
		return 0, err
	}
	if _, err := blockdev.Sum(ranges, dst.Volume.Size(), dst.BlockLength); err != nil {
		return 0, err
	}
	if t.isZero() {
		return offload.Zero(ctx, dst, ranges, o.Moved)
	}
	u, err := m.acquire(ctx, t, o.Requester)
	if err != nil {
		return 0, err
	}
	defer m.release(ctx, u)
	if offset < 0 || offset >= u.snapshot.Length() {
		return 0, fmt.Errorf("%w: offset %d, token of %d bytes", ErrOffset, offset, u.snapshot.Length())
	}
	n, stopped, err := m.engine.Write(u.ctx, u.snapshot, offset, dst, ranges, o.Moved)
	if err != nil || o.Completion == KeepToken || stopped {
		return n, u.err(err)
	}
	if err := m.end(ctx, u.entry, Deleted); err != nil && !errors.Is(err, errDying) {
		return n, err
	}
	return n, nil
}
