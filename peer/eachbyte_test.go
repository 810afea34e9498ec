package peer_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/peer"
	"odx/peer/peertest"
)

// changed is a connection of which one bit of the bytes that it receives is changed.
type changed struct {
	net.Conn
	at *atomic.Int64 // how many bytes come before that; negative: it is past
}

// Read implements net.Conn.
func (c changed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if end := c.at.Add(-int64(n)); n > 0 && end < 0 && end >= -int64(n) {
		p[end+int64(n)] ^= 1 << (end & 7)
	}
	return n, err
}

// TestFetch_EachByte: one bit of what a peer answers is changed on the way. What is written is what
// the peer has, or it is an error and whole blocks are as before.
func TestFetch_EachByte(t *testing.T) {
	const size = 8 << 10
	a, b := pair(t, peertest.Options{})
	src, dst := a.Volume("src", size, nil), b.Volume("dst", size, nil)
	old := make([]byte, size)
	refused := 0
	fetch := func(seed uint64, at *atomic.Int64) error {
		data := peertest.Random(seed, size)
		must.Succeed(t, src.WriteAt(ctx, data, 0), dst.WriteAt(ctx, old, 0))
		o := a.Options("b")
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return changed{c, at}, err
		}
		r := peer.NewRemote(o)
		defer r.Close()
		position := at.Swap(1 << 40) // the hold comes as it is
		h, err := r.HoldVolume(ctx, "src", "")
		must.Succeed(t, err)
		at.Store(position)
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond) // a length that is greater now is waited for
		defer cancel()
		n, err := peer.Fetch(limited, h, 0, dst, []blockdev.Range{{Length: size}}, peer.FetchOptions{})
		at.Store(1 << 40)
		must.Succeed(t, h.Release(ctx))
		got := content(t, dst)
		if err == nil && (n != size || !bytes.Equal(got, data)) {
			t.Fatalf("seed %d, bit %d: %d bytes done, and the destination has others", seed, position, n)
		}
		for i := 0; i < size; i += 4096 {
			if block := got[i : i+4096]; !bytes.Equal(block, old[i:i+4096]) && !bytes.Equal(block, data[i:i+4096]) {
				t.Fatalf("seed %d, bit %d: the block at %d is neither the old one nor the new one; %v", seed, position, i, err)
			}
		}
		return err
	}
	var at atomic.Int64
	at.Store(1 << 39)
	must.Succeed(t, fetch(1, &at))
	const answered = size + 700 // about what the answers are long
	step := sample.Size[int64](97, 37, 1)
	for i := int64(0); i < answered; i += step {
		at.Store(i)
		if fetch(uint64(i)+3, &at) != nil {
			refused++
		}
	}
	if want := size / int(step) * 9 / 10; refused < want {
		t.Errorf("%d changes were refused, want at least those in the data, about %d", refused, want)
	}
}
