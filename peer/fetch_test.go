package peer_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/peer/peertest"
)

// gated is a hold from which bytes past an offset come once the gate is open.
type gated struct {
	peer.Hold
	past int64
	gate <-chan struct{}
}

func (g gated) ReadRanges(ctx context.Context, p []byte, ranges []blockdev.Range) error {
	if ranges[0].Offset >= g.past {
		select {
		case <-g.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.Hold.ReadRanges(ctx, p, ranges)
}

// TestFetchRanges_Moved: bytes count as they come, and those that are here already before the
// first one comes; in all, what is done.
func TestFetchRanges_Moved(t *testing.T) {
	const size = 16 << 20
	a, b := pair(t, peertest.Options{})
	a.Volume("src", size, peertest.Random(1, size))
	p, _ := b.Peers.Resolve(a.Store.ID())
	h, err := p.HoldVolume(ctx, "src", "")
	must.Succeed(t, err)
	defer func() { must.Succeed(t, h.Release(ctx)) }()
	first := blockdev.Range{Offset: 0, Length: 4 << 20}
	all := []blockdev.Range{first, {Offset: 5 << 20, Length: size - 5<<20}}
	for _, tt := range []struct {
		name   string
		past   int64 // bytes from here on wait for others to count
		ranges []blockdev.Range
	}{
		{"new", 2 << 20, []blockdev.Range{first}},
		{"known at the start", 0, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limited, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			gate, once, moved := make(chan struct{}), sync.Once{}, int64(0)
			o := peer.FetchOptions{Moved: func(n int64) {
				if moved += n; n <= 0 {
					t.Errorf("%d bytes moved", n)
				}
				once.Do(func() { close(gate) })
			}}
			n, err := peer.FetchRanges(limited, gated{h, tt.past, gate}, b.Volume(tt.name, size, nil), tt.ranges, o)
			if err != nil || moved != n {
				t.Errorf("%d bytes done, %v; %d were counted", n, err, moved)
			}
		})
	}
}
