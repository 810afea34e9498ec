package view

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
)

// rotten is a volume with a block that cannot be read.
type rotten struct {
	blockdev.Volume
	at int64
}

func (r rotten) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < r.at+blockdev.BlockLength && r.at < off+int64(len(p)) {
		return &blockdev.CorruptError{Name: "volume below", Offset: r.at, Err: errInjected}
	}
	return r.Volume.ReadAt(ctx, p, off)
}

// TestDamage_Offset reads views of which a block cannot be read: the error has the
// offset in the view of the first byte that cannot.
func TestDamage_Offset(t *testing.T) {
	const size = 1 << 20
	b := start(t)
	bad := func(at int64) Device { return b.base(rotten{b.volume(t, size), at}) }
	good := func() Device { return b.base(b.volume(t, size)) }
	part := func(of Device, first, length int64) Device {
		d, err := NewPartition(of, first, length)
		must.Succeed(t, err)
		return d
	}
	checked := func(of Device, sums blockdev.Volume) Device {
		v, err := NewVerify("checked", of, sums, b.manager.Engine())
		must.Succeed(t, err)
		return v
	}
	changed := func() Device {
		below := b.volume(t, size)
		v := b.verify(t, b.base(below))
		must.Succeed(t, v.WriteAt(ctx, pattern(1, size), 0))
		must.Succeed(t, below.WriteAt(ctx, []byte{0xAA}, 5*4096+77))
		return v
	}
	overwritten := func() Device {
		o, err := OpenOrigin(OriginConfig{
			Name: b.name(), Of: good(), Before: rotten{b.volume(t, size), 2*minChunk + 8192}, Engine: b.manager.Engine(), Records: b.store,
		})
		must.Succeed(t, err)
		must.Succeed(t, o.note(ctx, 2*minChunk, minChunk))
		return NewSnapshot(o)
	}
	for _, c := range []struct {
		name             string
		view             Device
		off, length, bad int64
	}{
		{"a volume", bad(8192), 0, size, 8192},
		{"a partition", part(bad(40960), 63*512, 1<<19), 0, 1 << 19, 40960 - 63*512},
		{"a partition that begins in the block", part(bad(28672), 63*512, 1<<19), 0, 4096, 28672 - 63*512},
		{"a stripe", stripeOf(t, 8192, good(), bad(12288), good()), 0, size, 3*8192 + 8192 + 4096},
		{"a stripe, one unit of it", stripeOf(t, 8192, good(), bad(12288), good()), 4 * 8192, 8192, 4*8192 + 4096},
		{"a stripe with two bad legs", stripeOf(t, 8192, bad(8192), good(), bad(4096)), 0, size, 2*8192 + 4096},
		{"a partition of a stripe", part(stripeOf(t, 8192, good(), bad(12288)), 16384, 1<<19), 0, 1 << 19, 2*8192 + 8192 + 4096 - 16384},
		{"a cache", b.cache(bad(8192), false, 8), 4096, 16384, 8192},
		{"verify, below", checked(bad(8192), b.volume(t, SumsBytes(size))), 0, size, 8192},
		{"verify, a mismatch", changed(), 0, size, 5 * 4096},
		{"verify, checksums", checked(good(), rotten{b.volume(t, 2*4096), 0}), 3 * 4096, 8192, 3 * 4096},
		{"an origin", b.origin(t, bad(8192)), 0, size, 8192},
		{"a snapshot, what was not copied", NewSnapshot(b.origin(t, bad(8192))), 0, size, 8192},
		{"a snapshot, a copied chunk", overwritten(), minChunk, 3 * minChunk, 2*minChunk + 8192},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := NewStack(c.view, NewGate()).ReadAt(ctx, make([]byte, c.length), c.off)
			corrupt, ok := errors.AsType[*blockdev.CorruptError](err)
			if !ok || corrupt.Offset != c.bad {
				t.Errorf("%v, want damage at byte %d", err, c.bad)
			}
		})
	}
}
