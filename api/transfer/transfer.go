package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Disk is the source or the destination of a copy. Offsets and lengths are in bytes,
// multiples of BlockLength. It is safe for concurrent use.
type Disk interface {
	io.Closer
	// Size returns the capacity in bytes.
	Size() int64
	// BlockLength returns the length of a block in bytes.
	BlockLength() int
	// ReadAt fills p with the bytes at off. If BlockLength is 1, bytes past the end
	// read as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Zero makes a range read as zeros.
	Zero(ctx context.Context, off, length int64) error
	// Flush makes previous writes durable.
	Flush(ctx context.Context) error
}

// Token is a ROD token in the format of SPC-4.
type Token []byte

// Offloader is a Disk that copies by token. Populate and WriteUsing return the number
// of bytes done: at least one, and possibly fewer than requested.
type Offloader interface {
	// Populate creates a token of a range, or of its beginning.
	Populate(ctx context.Context, off, length int64) (Token, int64, error)
	// WriteUsing writes the token's bytes, starting at offset, to a range or its
	// beginning.
	WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error)
	// Forget deletes a token created by a Disk of the same server, to free its
	// resources before it expires.
	Forget(ctx context.Context, t Token) error
}

// Mapper is an Offloader that reports the cost of its copies.
type Mapper interface {
	// Maps reports that the server moves no bytes for a copy by token between two such
	// disks.
	Maps() bool
}

// Sparse is a Disk that reports ranges of zeros.
type Sparse interface {
	// NextData returns the first range at or after off that may have data other than
	// zeros. length is 0 if there is none.
	NextData(ctx context.Context, off int64) (start, length int64, err error)
}

// Options configure a copy. The zero value is valid.
type Options struct {
	// Progress, if not nil, is called repeatedly, by one goroutine at a time.
	Progress func(Progress)
	// WithoutTokens disables copies by token.
	WithoutTokens bool
	// TokensOnly ends the copy with ErrNotOffloaded where bytes would be read and written.
	TokensOnly bool
}

// Progress is the progress of a copy.
type Progress struct {
	// DoneBytes of TotalBytes are copied, MovedBytes of them by reading and writing.
	DoneBytes, TotalBytes, MovedBytes int64
}

// Result is the result of a copy.
type Result struct {
	// Bytes is the number of bytes copied: TokenBytes by token, MovedBytes by reading
	// and writing here, the rest zeros.
	Bytes      int64
	TokenBytes int64
	MovedBytes int64
	// Mapped reports that the server is known not to read and write the bytes copied by
	// token. It is false for data outside the server's store.
	Mapped bool
	// Reason is why not all bytes were copied by token, or empty if they were.
	Reason   string
	Duration time.Duration
}

var (
	// ErrTooSmall reports a destination smaller than the source.
	ErrTooSmall = errors.New("destination too small")
	// ErrNotOffloaded reports that bytes cannot be copied by token.
	ErrNotOffloaded = errors.New("not offloaded")
	// ErrNoVolume reports that the store has no volume of the name.
	ErrNoVolume = errors.New("the store has no such volume")
	// ErrNoFile reports that the store has no file of the name.
	ErrNoFile = errors.New("the store has no such file")
)

// Copy copies all of src to the beginning of dst, durably, and finishes a Finisher. If
// src has blocks of 1 byte, like a file, it may end within a block of dst; the rest of
// that block becomes zeros.
func Copy(ctx context.Context, dst, src Disk, o Options) (Result, error) {
	start := time.Now()
	c := copier{dst: dst, src: src, options: o, total: src.Size(), block: int64(max(dst.BlockLength(), src.BlockLength()))}
	if rest := c.total % c.block; rest != 0 && src.BlockLength() == 1 {
		c.total += c.block - rest
	} else if rest != 0 {
		return Result{}, fmt.Errorf("the source has %d bytes, which is not a multiple of the block length %d", c.total, c.block)
	}
	if c.total > dst.Size() {
		return Result{}, fmt.Errorf("%w: %d bytes for %d", ErrTooSmall, dst.Size(), c.total)
	}
	reason, err := c.byToken(ctx)
	if err == nil && c.done.Load() < c.total {
		if o.TokensOnly {
			err = fmt.Errorf("%w: %s", ErrNotOffloaded, reason)
		} else {
			err = c.byData(ctx)
		}
	}
	if err == nil {
		err = dst.Flush(ctx)
	}
	if f, ok := dst.(Finisher); ok && err == nil {
		err = f.Finish(ctx)
	}
	c.progress()
	return Result{
		Bytes: c.done.Load(), TokenBytes: c.tokens, MovedBytes: c.moved.Load(),
		Mapped: c.tokens > 0 && maps(dst) && maps(src), Reason: reason, Duration: time.Since(start),
	}, err
}

func maps(d Disk) bool {
	m, ok := d.(Mapper)
	return ok && m.Maps()
}

// copier is a copy in progress.
type copier struct {
	dst, src Disk
	options  Options
	total    int64
	block    int64 // length in bytes, of the disk with the longer blocks
	tokens   int64 // bytes copied by token, at the beginning

	done, moved atomic.Int64
}

func (c *copier) progress() {
	if c.options.Progress != nil {
		c.options.Progress(Progress{DoneBytes: c.done.Load(), TotalBytes: c.total, MovedBytes: c.moved.Load()})
	}
}

// byToken copies by token as far as possible. reason is why it stopped before the end.
// err is not nil only if the copy cannot continue.
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

// forgetLimit bounds the time to delete a token. A token not deleted expires.
const forgetLimit = 5 * time.Second

// forget deletes a token at the first of ends that succeeds. A token not deleted
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

// oneToken copies the data of one token.
func (c *copier) oneToken(ctx context.Context, src, dst Offloader) (int64, error) {
	t, length, err := src.Populate(ctx, c.tokens, c.total-c.tokens)
	if err != nil {
		return 0, fmt.Errorf("create a token: %w", err)
	}
	if length <= 0 {
		return 0, errors.New("the source's token represents 0 bytes")
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
			return done, errors.New("the destination wrote 0 bytes of a token")
		}
		done += n
		c.done.Add(n)
		c.progress()
	}
	// A read-only source does not support Zero.
	forget(ctx, t, dst, src)
	return done, nil
}
