package peer_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/peer/peertest"
)

// wire counts what crosses connections, in both directions.
type wire struct {
	net.Conn
	n *atomic.Int64
}

func (c wire) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c wire) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// counted returns a as a peer of b, and what crosses between them.
func counted(t *testing.T, a *peertest.Server) (*peer.Remote, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	o := a.Options("b")
	dial := o.Dial
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wire{c, &n}, nil
	}
	r := peer.NewRemote(o)
	t.Cleanup(r.Close)
	return r, &n
}

// fetchAll makes a volume equal to one of a peer, and returns what crossed.
func fetchAll(t *testing.T, p *peer.Remote, n *atomic.Int64, src string, dst *backstore.Volume, o peer.FetchOptions) int64 {
	t.Helper()
	before := n.Load()
	h, err := p.HoldVolume(ctx, src, "")
	must.Succeed(t, err)
	done, err := peer.FetchRanges(ctx, h, dst, []blockdev.Range{{Length: h.Length()}}, o)
	if err != nil || done != h.Length() {
		t.Fatalf("%d bytes of %d, %v", done, h.Length(), err)
	}
	must.Succeed(t, h.Release(ctx))
	return n.Load() - before
}

// same compares a volume with bytes.
func same(t *testing.T, s *peertest.Server, name string, want []byte) {
	t.Helper()
	v, err := s.Store.Volume(name)
	must.Succeed(t, err)
	got := make([]byte, len(want))
	must.Succeed(t, v.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, want) {
		t.Errorf("%s of %s has other bytes", name, s.Name)
	}
}

// TestFetchRanges_Hash: of what another volume here has, never fetched from there, less than 3 %
// crosses; what is new crosses once; the next time neither is hashed. Without the option, or
// deduplication, all crosses.
func TestFetchRanges_Hash(t *testing.T) {
	const size, changed = 8 << 20, 64 << 10
	data := peertest.Random(31, size)
	for _, tt := range []struct {
		name       string
		here, peer int // dedup units
	}{{"blocks", 4 << 10, 64 << 10}, {"units", 64 << 10, 4 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			a := peertest.New(t, "a", peertest.Options{DedupUnit: tt.peer})
			b := peertest.New(t, "b", peertest.Options{DedupUnit: tt.here})
			p, n := counted(t, a)
			a.Volume("src", size, data)
			b.Volume("unrelated", size, data)

			crossed := fetchAll(t, p, n, "src", b.Volume("copy", size, nil), peer.FetchOptions{Hash: true})
			t.Logf("%d of %d bytes crossed, %.2f %%", crossed, size, float64(crossed)*100/size)
			if crossed*100 >= size*3 {
				t.Error("that is not less than 3 %")
			}
			same(t, b, "copy", data)
			// Its names are known now, so that the same needs no fingerprints.
			again := fetchAll(t, p, n, "src", b.Volume("again", size, nil), peer.FetchOptions{Hash: true})
			if again >= crossed {
				t.Errorf("%d bytes cross when all is known, %d by fingerprints", again, crossed)
			}
			same(t, b, "again", data)

			mixed := bytes.Clone(data)
			copy(mixed[3<<20+4096:], peertest.Random(32, changed))
			clear(mixed[7<<20 : 7<<20+12<<10])
			a.Volume("mixed", size, mixed)
			crossed = fetchAll(t, p, n, "mixed", b.Volume("mixed", size, nil), peer.FetchOptions{Hash: true})
			if most := int64(changed + 2*tt.here + size*3/100); crossed < changed || crossed > most {
				t.Errorf("%d bytes cross of %d that are new, at most %d may", crossed, changed, most)
			}
			same(t, b, "mixed", mixed)

			c := peertest.New(t, "c", peertest.Options{DedupUnit: tt.here})
			c.Volume("unrelated", size, data)
			if crossed := fetchAll(t, p, n, "src", c.Volume("copy", size, nil), peer.FetchOptions{}); crossed < size {
				t.Errorf("%d bytes cross without the option", crossed)
			}
			d := peertest.New(t, "d", peertest.Options{DedupUnit: tt.here})
			d.Volume("unrelated", size, data)
			alone := d.Volume("copy", size, nil)
			alone.StoreDuplicates(true)
			if crossed := fetchAll(t, p, n, "src", alone, peer.FetchOptions{Hash: true}); crossed < size {
				t.Errorf("%d bytes cross where duplicates are stored", crossed)
			}
		})
	}
}

// TestFetchRanges_Hash_Lies: fingerprints that are not those of the bytes that the runs say are
// not mapped: the checksums differ.
func TestFetchRanges_Hash_Lies(t *testing.T) {
	const size = 1 << 20
	a, b := pair(t, peertest.Options{})
	data := peertest.Random(33, size)
	a.Volume("src", size, data)
	b.Volume("secret", size, peertest.Random(34, size))
	p := a.As("b")
	h, err := p.HoldVolume(ctx, "src", "")
	must.Succeed(t, err)
	defer func() { must.Succeed(t, h.Release(ctx)) }()
	of, err := b.Store.Volume("secret")
	must.Succeed(t, err)
	key, unit, err := of.FingerprintKey()
	must.Succeed(t, err)
	a.Volume("guess", size, peertest.Random(34, size))
	g, err := p.HoldVolume(ctx, "guess", "")
	must.Succeed(t, err)
	defer func() { must.Succeed(t, g.Release(ctx)) }()
	whole := []blockdev.Range{{Length: size}}
	prints, err := g.Fingerprints(ctx, key, unit, whole)
	must.Succeed(t, err)
	done, err := peer.FetchRanges(ctx, lying{h, prints}, b.Volume("copy", size, nil), whole, peer.FetchOptions{Hash: true})
	if err != nil || done != size {
		t.Fatalf("%d bytes, %v", done, err)
	}
	same(t, b, "copy", data)
	same(t, b, "secret", peertest.Random(34, size))
}

// lying gives other fingerprints.
type lying struct {
	peer.Hold
	prints []backstore.Fingerprint
}

func (l lying) Fingerprints(context.Context, [32]byte, int, []blockdev.Range) ([]backstore.Fingerprint, error) {
	return l.prints, nil
}

// TestKeeper_Fingerprints_Bad: requests that make no sense are refused.
func TestKeeper_Fingerprints_Bad(t *testing.T) {
	a := peertest.New(t, "a", peertest.Options{})
	a.Volume("src", 8<<20, peertest.Random(35, 8<<20))
	h, err := a.As("b").HoldVolume(ctx, "src", "")
	must.Succeed(t, err)
	defer func() { must.Succeed(t, h.Release(ctx)) }()
	for name, c := range map[string]struct {
		unit   int
		ranges []blockdev.Range
	}{
		"unit of 3 blocks": {3 * 4096, []blockdev.Range{{Length: 4096}}},
		"unit of 1 MiB":    {1 << 20, []blockdev.Range{{Length: 4096}}},
		"too much":         {4096, []blockdev.Range{{Length: 8 << 20}}},
		"beyond":           {4096, []blockdev.Range{{Offset: 8<<20 - 4096, Length: 8192}}},
	} {
		if _, err := h.Fingerprints(ctx, [32]byte{}, c.unit, c.ranges); err == nil || errors.Is(err, peer.ErrDown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
