package tokens

import (
	"context"

	"odx/blockdev"
	"odx/offload"
)

// WriteOptions are the choices of an offload write. The zero value is valid.
type WriteOptions struct {
	// Completion says what happens to the token afterwards.
	Completion Completion
	// Requester may have to be allowed to use the token. The caller has checked that it
	// may write to the destination.
	Requester Requester
	// Moved, if set, is called with the bytes of each step, and the write does not stop
	// at its deadline: it is one use of the token from start to end.
	Moved func(n int64)
}

// Completion is what an offload write does with its token in the end.
type Completion uint8

const (
	// KeepToken leaves the token for others.
	KeepToken Completion = iota
	// DeleteToken deletes it once there is nothing left to write: when every range was
	// written or the token's bytes ended. A call that did less, or failed, keeps it for
	// the calls that continue it.
	DeleteToken
)

// OffloadWrite makes ranges of dst equal to the token's bytes from offset on and
// returns how many bytes it did: whole blocks, contiguous from the start of the first
// range. Fewer than asked for without an error means that the token's bytes ended or
// that the call's time did; the caller continues from there with another call. With an
// error, the bytes done before it.
//
// Errors: those that refuse a token, ErrOffset, blockdev.ErrRange, ErrAccess, and those
// of the store and the destination.
func (m *Manager) OffloadWrite(ctx context.Context, t *Token, offset int64, dst offload.Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	h, err := m.Resolve(t)
	if err != nil {
		return 0, err
	}
	return h.OffloadWrite(ctx, offset, dst, ranges, o)
}
