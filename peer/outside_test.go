package peer_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/peer/peertest"
	"odx/tokens"
)

// outside is a volume that is no object of a store, which wants whole logical blocks. A write
// waits until another one has come, so that copies of one piece after the other do not end.
type outside struct {
	offloadtest.Foreign
	writes atomic.Int64
	both   chan struct{} // closed by the second write
}

func newOutside(size int64, blockLength int) *outside {
	v := offloadtest.NewStore([16]byte{9}).NewVolume("outside", size)
	return &outside{Foreign: offloadtest.Foreign{Volume: v, BlockLength: int64(blockLength)}, both: make(chan struct{})}
}

func (o *outside) WriteAt(ctx context.Context, p []byte, off int64) error {
	if o.writes.Add(1) == 2 {
		close(o.both)
	}
	select {
	case <-o.both:
	case <-ctx.Done():
		return ctx.Err()
	}
	return o.Foreign.WriteAt(ctx, p, off)
}

// TestTokens_Write_Outside: what is no volume of a store, as a view or a plain file, is filled by
// several pieces at once, in whole logical blocks; holes do not cross.
func TestTokens_Write_Outside(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	const size = 8 << 20
	data := peertest.Random(1, size)
	clear(data[1<<20 : 3<<20])
	src := a.Volume("src", size, data)
	must.Succeed(t, src.Unmap(ctx, 1<<20, 2<<20))
	for _, tt := range []struct {
		name  string
		block int
		parts []blockdev.Range // of the token
		to    int64
		least int64 // bytes that are holes and do not cross
	}{
		{"whole", 4096, []blockdev.Range{{Length: size}}, 0, 2 << 20},
		{"parts that cut blocks", 4096, []blockdev.Range{{Offset: 512, Length: 1 << 20}, {Offset: 2<<20 + 1024, Length: 4 << 20}}, 8192, 1<<20 - 8192},
		{"not congruent", 512, []blockdev.Range{{Length: size - 4096}}, 1536, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limited, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			token := tokenOf(t, a, src, tokens.ReadOptions{}, tt.parts...)
			dst := newOutside(size, tt.block)
			want := peertest.Random(3, size)
			must.Succeed(t, dst.Foreign.WriteAt(ctx, want, 0))
			at := tt.to
			for _, p := range tt.parts {
				at += int64(copy(want[at:], data[p.Offset:p.End()]))
			}
			before := b.Peers.Status()[0]
			n, err := b.Tokens.OffloadWrite(limited, token, 0, offload.Destination{Volume: dst, BlockLength: tt.block},
				[]blockdev.Range{{Offset: tt.to, Length: at - tt.to}}, tokens.WriteOptions{})
			must.Succeed(t, err)
			got := make([]byte, size)
			must.Succeed(t, dst.ReadAt(ctx, got, 0))
			if n != at-tt.to || !bytes.Equal(got, want) {
				t.Errorf("%d bytes done of %d, or other bytes", n, at-tt.to)
			}
			if now := b.Peers.Status()[0]; n-(now.Fetched-before.Fetched) < tt.least {
				t.Errorf("%d of %d bytes crossed", now.Fetched-before.Fetched, n)
			}
		})
	}
}
