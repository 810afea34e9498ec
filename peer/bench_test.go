package peer_test

import (
	"fmt"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/peer/peertest"
)

// benchBytes is the length of the token of the benchmarks.
const benchBytes = 256 << 20

// BenchmarkFetch: data that is not here; that was here before; and what a local write of it
// costs, in pieces of 1 MiB, for comparison.
func BenchmarkFetch(b *testing.B) {
	a, here := pair(b, peertest.Options{})
	data := peertest.Random(1, benchBytes)
	a.Volume("src", benchBytes, data)
	p, _ := here.Peers.Resolve(a.Store.ID())
	h, err := p.HoldVolume(ctx, "src", "")
	must.Succeed(b, err)
	defer func() { must.Succeed(b, h.Release(ctx)) }()
	all := []blockdev.Range{{Length: benchBytes}}
	b.Run("known", func(b *testing.B) {
		first := here.Volume(fmt.Sprintf("first%d", b.N), benchBytes, nil)
		_, err := peer.Fetch(ctx, h, 0, first, all, peer.FetchOptions{})
		must.Succeed(b, err)
		b.SetBytes(benchBytes)
		b.ResetTimer()
		for i := range b.N {
			v := here.Volume(fmt.Sprintf("known%d.%d", b.N, i), benchBytes, nil)
			n, err := peer.Fetch(ctx, h, 0, v, all, peer.FetchOptions{})
			must.Succeed(b, err)
			if n != benchBytes {
				b.Fatalf("%d bytes", n)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for range b.N {
			b.StopTimer()
			c := peertest.New(b, "c", peertest.Options{})
			v := c.Volume("v", benchBytes, nil)
			b.StartTimer()
			n, err := peer.Fetch(ctx, h, 0, v, all, peer.FetchOptions{})
			must.Succeed(b, err)
			if n != benchBytes {
				b.Fatalf("%d bytes", n)
			}
		}
	})
	b.Run("local write", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for range b.N {
			b.StopTimer()
			c := peertest.New(b, "d", peertest.Options{})
			v := c.Volume("v", benchBytes, nil)
			b.StartTimer()
			for at := 0; at < benchBytes; at += 1 << 20 {
				must.Succeed(b, v.WriteAt(ctx, data[at:at+1<<20], int64(at)))
			}
		}
	})
}
