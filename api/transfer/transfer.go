package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Disk is one end of a copy. Offsets and lengths are bytes, multiples of
// BlockLength. Its methods may be called concurrently.
type Disk interface {
	io.Closer
	// Size returns the capacity in bytes.
	Size() int64
	// BlockLength is what offsets and lengths are multiples of.
	BlockLength() int
	// ReadAt fills p from off. Where BlockLength is 1, what is beyond the end
	// reads as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Zero makes a range read as zeros.
	Zero(ctx context.Context, off, length int64) error
	// Flush makes what was written durable.
	Flush(ctx context.Context) error
}

// Token is a ROD token as SPC-4 lays it out.
type Token []byte

// Offloader is the Disk that copies by token. Populate and WriteUsing may do less
// than they were asked, but something; they return how much.
type Offloader interface {
	// Populate makes a token for a range, or for its beginning.
	Populate(ctx context.Context, off, length int64) (Token, int64, error)
	// WriteUsing makes a range, or its beginning, equal to the token's bytes from
	// an offset on.
	WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error)
	// Forget deletes a token that a Disk of the same server has made, so that it
	// holds nothing until it expires.
	Forget(ctx context.Context, t Token) error
}

// Mapper is the Offloader that knows what its copies cost.
type Mapper interface {
	// Maps reports that a copy by token between two such disks of one server moves
	// no bytes there either.
	Maps() bool
}

// Sparse is the Disk that knows where it has only zeros.
type Sparse interface {
	// NextData returns the first range at or after off that may have something
	// else than zeros; length is 0 when there is none.
	NextData(ctx context.Context, off int64) (start, length int64, err error)
}

// Options are the choices of a copy. The zero value is valid.
type Options struct {
	// Progress, if any, is called now and then, from one goroutine at a time.
	Progress func(Progress)
	// WithoutTokens reads and writes in any case.
	WithoutTokens bool
}

// Progress is how far a copy is.
type Progress struct {
	// DoneBytes of TotalBytes are copied; MovedBytes of them were read and
	// written.
	DoneBytes, TotalBytes, MovedBytes int64
}

// Result is what a copy did.
type Result struct {
	// Bytes is the length of what was copied. TokenBytes of it went by token,
	// MovedBytes were read and written here, the rest was zeros.
	Bytes      int64
	TokenBytes int64
	MovedBytes int64
	// Mapped: what went by token was not read and written by the server either, as
	// far as it is known. It is not for what lies outside the server's store.
	Mapped bool
	// Reason says why not all went by token, empty if it did.
	Reason   string
	Duration time.Duration
}

var (
	// ErrTooSmall: the destination is smaller than the source.
	ErrTooSmall = errors.New("the destination is too small")
	// ErrNoVolume: the store has no volume of that name.
	ErrNoVolume = errors.New("the store has no such volume")
	// ErrNoFile: the store has no file of that name.
	ErrNoFile = errors.New("the store has no such file")
)

// Copy makes the beginning of dst equal to all of src, durably, and finishes what is a
// Finisher. A source that
// counts single bytes, a file, may end in the middle of a block of dst; the rest
// of that block becomes zeros.
func Copy(ctx context.Context, dst, src Disk, o Options) (Result, error) {
	start := time.Now()
	c := copier{dst: dst, src: src, options: o, total: src.Size(), block: int64(max(dst.BlockLength(), src.BlockLength()))}
	if rest := c.total % c.block; rest != 0 && src.BlockLength() == 1 {
		c.total += c.block - rest
	} else if rest != 0 {
		return Result{}, fmt.Errorf("the source has %d bytes, which is no whole number of blocks of %d", c.total, c.block)
	}
	if c.total > dst.Size() {
		return Result{}, fmt.Errorf("%w: %d bytes for %d", ErrTooSmall, dst.Size(), c.total)
	}
	reason, err := c.byToken(ctx)
	if err == nil && c.done.Load() < c.total {
		err = c.byData(ctx)
	}
	if err == nil {
		err = dst.Flush(ctx)
	}
	if f, ok := dst.(Finisher); ok && err == nil {
		err = f.Finish(ctx)
	}
	c.tell()
	return Result{
		Bytes: c.done.Load(), TokenBytes: c.tokens, MovedBytes: c.moved.Load(),
		Mapped: c.tokens > 0 && maps(dst) && maps(src), Reason: reason, Duration: time.Since(start),
	}, err
}

func maps(d Disk) bool {
	m, ok := d.(Mapper)
	return ok && m.Maps()
}

// copier is a copy under way.
type copier struct {
	dst, src Disk
	options  Options
	total    int64
	block    int64 // bytes, of the disk with the longer blocks
	tokens   int64 // bytes that went by token: the beginning

	done, moved atomic.Int64
}

func (c *copier) tell() {
	if c.options.Progress != nil {
		c.options.Progress(Progress{DoneBytes: c.done.Load(), TotalBytes: c.total, MovedBytes: c.moved.Load()})
	}
}

// byToken copies by token as far as that goes. reason says why that is not to
// the end; err is not nil only when the copy cannot go on at all.
func (c *copier) byToken(ctx context.Context) (reason string, err error) {
	if c.options.WithoutTokens {
		return "tokens were not wanted", nil
	}
	src, ok := c.src.(Offloader)
	if !ok {
		return "the source makes no tokens", nil
	}
	dst, ok := c.dst.(Offloader)
	if !ok {
		return "the destination takes no tokens", nil
	}
	for c.tokens < c.total {
		n, err := c.oneToken(ctx, src, dst)
		c.tokens += n
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			return err.Error(), nil
		}
	}
	return "", nil
}

// forgetLimit bounds the deletion of a token, which expires otherwise.
const forgetLimit = 5 * time.Second

// forget deletes a token at the first of the ends that takes it; where none does, it
// expires.
func forget(ctx context.Context, t Token, ends ...Offloader) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetLimit)
	defer cancel()
	for _, end := range ends {
		if end.Forget(ctx, t) == nil {
			return
		}
	}
}

// oneToken copies what one token stands for.
func (c *copier) oneToken(ctx context.Context, src, dst Offloader) (int64, error) {
	t, length, err := src.Populate(ctx, c.tokens, c.total-c.tokens)
	if err != nil {
		return 0, fmt.Errorf("make a token: %w", err)
	}
	if length <= 0 {
		return 0, errors.New("the source's token stands for nothing")
	}
	length = min(length, c.total-c.tokens)
	var done int64
	for done < length {
		n, err := dst.WriteUsing(ctx, t, done, c.tokens+done, length-done)
		if err != nil {
			forget(ctx, t, src) // the destination may not know it
			return done, fmt.Errorf("write with a token: %w", err)
		}
		if n <= 0 {
			forget(ctx, t, src)
			return done, errors.New("the destination took nothing of a token")
		}
		done += n
		c.done.Add(n)
		c.tell()
	}
	// A source that cannot be written to takes no command for that.
	forget(ctx, t, dst, src)
	return done, nil
}
