package transfer

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// chunk is the length of a read and write in bytes, and parallel the number of
// concurrent ones.
const (
	chunk    = 1 << 20
	parallel = 8
)

// zeros is a chunk of zeros.
var zeros [chunk]byte

// byData copies the part that was not copied by token, by reading and writing.
func (c *copier) byData(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	parts := make(chan part)
	group.Go(func() error {
		defer close(parts)
		return c.split(ctx, parts)
	})
	var telling sync.Mutex
	for range parallel {
		group.Go(func() error {
			buf := make([]byte, chunk)
			for p := range parts {
				if err := c.move(ctx, buf, p); err != nil {
					return err
				}
				if telling.TryLock() {
					c.progress()
					telling.Unlock()
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// part is a range of both disks. A hole has only zeros.
type part struct {
	off, length int64
	hole        bool
}

// split sends data to be copied in parts of at most a chunk, and whole holes.
func (c *copier) split(ctx context.Context, parts chan<- part) error {
	send := func(p part) error {
		select {
		case parts <- p:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for off := c.tokens; off < c.total; {
		start, length, err := c.nextData(ctx, off)
		if err != nil {
			return fmt.Errorf("find data from %d on: %w", off, err)
		}
		if start > off {
			if err := send(part{off, start - off, true}); err != nil {
				return err
			}
		}
		for off = start; off < start+length; off += chunk {
			if err := send(part{off, min(chunk, start+length-off), false}); err != nil {
				return err
			}
		}
		off = start + length
	}
	return nil
}

// nextData returns the next range with data, extended to whole blocks, or an empty
// range at the end.
func (c *copier) nextData(ctx context.Context, off int64) (start, length int64, err error) {
	sparse, ok := c.src.(Sparse)
	if !ok {
		return off, c.total - off, nil
	}
	start, length, err = sparse.NextData(ctx, off)
	if err != nil || length == 0 {
		return c.total, 0, err
	}
	end := min((start+length+c.block-1)/c.block*c.block, c.total)
	start = min(max(start/c.block*c.block, off), end)
	return start, end - start, nil
}

// move copies a part.
func (c *copier) move(ctx context.Context, buf []byte, p part) error {
	if p.hole {
		return c.zero(ctx, p)
	}
	buf = buf[:p.length]
	if err := c.src.ReadAt(ctx, buf, p.off); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", p.length, p.off, err)
	}
	if bytes.Equal(buf, zeros[:p.length]) {
		return c.zero(ctx, p)
	}
	if err := c.dst.WriteAt(ctx, buf, p.off); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", p.length, p.off, err)
	}
	c.moved.Add(p.length)
	c.done.Add(p.length)
	return nil
}

func (c *copier) zero(ctx context.Context, p part) error {
	if err := c.dst.Zero(ctx, p.off, p.length); err != nil {
		return fmt.Errorf("zero %d bytes at %d: %w", p.length, p.off, err)
	}
	c.done.Add(p.length)
	return nil
}
