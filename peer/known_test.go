package peer_test

import (
	"bytes"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer/peertest"
	"odx/tokens"
)

// TestTokens_Known: what a server has had from another one is not sent again.
func TestTokens_Known(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	const size = 16 << 20
	data := peertest.Random(3, size)
	src := a.Volume("src", size, data)
	first := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
	one := b.Volume("one", size, nil)
	_, err := write(b, first, one, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	before := b.Peers.Status()[0]
	if before.Fetched != size {
		t.Fatalf("%d bytes came, want %d", before.Fetched, size)
	}
	changed := peertest.Random(4, 4096)
	must.Succeed(t, src.WriteAt(ctx, changed, 8<<20))
	copy(data[8<<20:], changed)
	second := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
	two := b.Volume("two", size, nil)
	_, err = write(b, second, two, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	if !bytes.Equal(content(t, two), data) {
		t.Error("the destination has other bytes")
	}
	after := b.Peers.Status()[0]
	if n := after.Fetched - before.Fetched; n > 64<<10 {
		t.Errorf("%d bytes came again, one block changed", n)
	}
	if n := after.Wire - before.Wire; n > size/50 {
		t.Errorf("%d bytes crossed the wire", n)
	}
}
