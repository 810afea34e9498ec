package view

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
)

// counted is a volume that counts its reads.
type counted struct {
	blockdev.Volume
	reads int
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.reads++
	return c.Volume.ReadAt(ctx, p, off)
}

// TestCache_Hits: data that was read or written is not read again from the device, and
// the cache does not exceed its size.
func TestCache_Hits(t *testing.T) {
	b := start(t)
	const size = 1 << 20
	below := &counted{Volume: b.outside(size)}
	c := b.cache(b.base(below), false, 16)
	must.Succeed(t, c.WriteAt(ctx, pattern(1, 8192), 0))
	must.Succeed(t, c.ReadAt(ctx, make([]byte, 8192), 0))
	must.Succeed(t, c.ReadAt(ctx, make([]byte, 4096), 65536))
	must.Succeed(t, c.ReadAt(ctx, make([]byte, 512), 65536+512))
	if below.reads != 1 {
		t.Errorf("%d reads, want 1", below.reads)
	}
	for _, writeBack := range []bool{false, true} {
		c := b.cache(b.base(below), writeBack, 16)
		for off := int64(0); off < size; off += 20480 {
			n := min(20480, size-off)
			must.Succeed(t, c.WriteAt(ctx, pattern(byte(off>>12), n), off))
			must.Succeed(t, c.ReadAt(ctx, make([]byte, 4096), size-4096-off/4096*4096))
			if held, _ := c.Held(); held > 16*lineBytes {
				t.Fatalf("%d bytes in the cache", held)
			}
		}
	}
}

// TestCache_WriteBack: a flush and an offload read write back dirty lines. Lines that
// cannot be written back remain, and the flush returns an error.
func TestCache_WriteBack(t *testing.T) {
	b := start(t)
	const size = 64 << 10
	plain := b.outside(size)
	below := &faulty{Volume: plain}
	c := b.cache(b.base(below), true, 256)
	s := NewStack(c, NewGate())
	zeros := make([]byte, size)
	must.Succeed(t, s.WriteAt(ctx, pattern(1, 8192), 512))
	same(t, "before the flush", contents(t, plain), zeros)
	if _, dirty := c.Held(); dirty != 3*lineBytes {
		t.Errorf("%d dirty bytes", dirty)
	}
	below.writes.Store(true)
	if err := s.Flush(ctx); !errors.Is(err, errInjected) {
		t.Errorf("flush: %v", err)
	}
	below.writes.Store(false)
	must.Succeed(t, s.Flush(ctx))
	want := make([]byte, size)
	copy(want[512:], pattern(1, 8192))
	same(t, "after the flush", contents(t, plain), want)

	must.Succeed(t, s.WriteAt(ctx, pattern(2, 4096), 16384))
	token, n := b.populate(t, s, blockdev.Range{Offset: 16384, Length: 4096})
	same(t, "after an offload read", contents(t, plain)[16384:][:4096], pattern(2, 4096))
	must.Succeed(t, s.WriteAt(ctx, pattern(3, 4096), 16384))
	b.writeUsing(t, token, s, 32768, n)
	same(t, "copy", contents(t, s)[32768:][:4096], pattern(2, 4096))
	below.writes.Store(true) // dirty lines are kept
	same(t, "read with nothing written out", contents(t, s)[16384:][:4096], pattern(3, 4096))
	below.writes.Store(false)
	must.Succeed(t, s.Flush(ctx))
}

// TestCache_OffloadWrite: an offload write invalidates the lines of its range, dirty or
// not, and keeps the rest of partly covered lines.
func TestCache_OffloadWrite(t *testing.T) {
	b := start(t)
	const size = 64 << 10
	src := b.volume(t, size)
	must.Succeed(t, src.WriteAt(ctx, pattern(9, size), 0))
	token, _ := b.populate(t, src, blockdev.Range{Length: size})
	for _, writeBack := range []bool{false, true} {
		c := b.cache(b.base(b.volume(t, size)), writeBack, 256)
		s := NewStack(c, NewGate())
		must.Succeed(t, s.WriteAt(ctx, pattern(1, size), 0))
		b.writeUsing(t, token, s, 512, 20480)
		want := pattern(1, size)
		copy(want[512:], pattern(9, 20480))
		same(t, "copy", contents(t, s), want)
		must.Succeed(t, s.Flush(ctx))
		same(t, "copy below", contents(t, c.of), want)
	}
}
