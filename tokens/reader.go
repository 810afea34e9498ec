package tokens

import (
	"context"
	"fmt"
	"io"
	"math"

	"odx/blockdev"
)

// PastEnd is what a Reader returns past the last byte of its token.
type PastEnd uint8

const (
	// EndOfData gives io.EOF, like a file.
	EndOfData PastEnd = iota
	// Zeros gives zeros without end, like the rest of a destination block.
	Zeros
)

// ReaderOptions are the choices of OpenReader. The zero value is valid.
type ReaderOptions struct {
	PastEnd   PastEnd
	Requester Requester
}

// Reader gives the bytes that a token stands for without writing them anywhere.
// While it is open the token is in use. It is safe for concurrent use.
type Reader struct {
	m       *Manager
	use     *use // nil: the zero token
	pastEnd PastEnd
}

// OpenReader opens the token t for reading. It reads a single point in time: for an
// access upon reference token, that of this call. The reader ends with ctx, and the
// caller closes it.
//
// Errors: those that refuse a token, and ErrAccess.
func (m *Manager) OpenReader(ctx context.Context, t *Token, o ReaderOptions) (*Reader, error) {
	h, err := m.Resolve(t)
	if err != nil {
		return nil, err
	}
	return h.OpenReader(ctx, o)
}

// Length returns the number of bytes that the token stands for: math.MaxInt64 for
// the block device zero token.
func (r *Reader) Length() int64 {
	if r.use == nil {
		return math.MaxInt64
	}
	return r.use.snapshot.Length()
}

// ReadAt fills p from byte off of the token and returns how many bytes it
// filled: all of p without an error, or those up to the end of the token with
// io.EOF. Other errors are those of the store, of the reader's context, and,
// where policy ends copies with their token, the token's.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%w: read at %d", blockdev.ErrRange, off)
	}
	have := max(min(int64(len(p)), r.Length()-off), 0)
	if r.use == nil {
		clear(p[:have])
	} else if err := r.fill(ctx, p[:have], off); err != nil {
		return 0, err
	}
	if have == int64(len(p)) {
		return len(p), nil
	}
	if r.pastEnd == EndOfData {
		return int(have), io.EOF
	}
	clear(p[have:])
	return len(p), nil
}

// fill reads bytes of the token; the snapshot checks the range.
func (r *Reader) fill(ctx context.Context, p []byte, off int64) error {
	if err := r.use.ctx.Err(); err != nil {
		return r.use.err(err)
	}
	if len(p) == 0 {
		return nil
	}
	return r.use.snapshot.ReadAt(ctx, p, off)
}

// Copy makes [to, to+length) of dst equal to [from, from+length) of the token, in
// bytes, as offload.Engine.Copy does with a volume. The block device zero token is not
// copied so.
func (r *Reader) Copy(ctx context.Context, from int64, dst blockdev.Volume, to, length int64, moved func(n int64)) error {
	switch {
	case r.use == nil:
		return fmt.Errorf("%w: copy of a token without end", ErrUnsupportedType)
	case !(blockdev.Range{Offset: from, Length: length}).In(r.Length()):
		return fmt.Errorf("%w: %d bytes at %d, token of %d bytes", blockdev.ErrRange, length, from, r.Length())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.use.err(r.m.engine.CopySnapshot(r.use.ctx, r.use.snapshot, from, dst, to, length, moved))
}

// Close ends the reader, which counts as the end of one use of its token. No
// call may be running.
func (r *Reader) Close() {
	if r.use != nil {
		r.m.release(context.WithoutCancel(r.use.ctx), r.use)
	}
}
