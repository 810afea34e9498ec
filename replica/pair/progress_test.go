package pair

import (
	"context"
	"testing"

	"odx/internal/kit/must"
	"odx/peer"
)

// TestProgress_Left: what is left is never less than what is fetched from then on, and is exact once
// all was counted, before it was compared.
func TestProgress_Left(t *testing.T) {
	ctx := context.Background()
	const size, written = 3*diffWindow + 4096, 5 * 65536
	w := newWorld(t, 9, "a", "b")
	a, b := w.servers[0], w.servers[1]
	v, err := a.store.CreateVolume(ctx, "web", size)
	must.Succeed(t, err)
	p := make([]byte, 65536)
	for i := range p {
		p[i] = byte(i) | 1
	}
	for i, off := range []int64{0, diffWindow - 65536, diffWindow, 2*diffWindow + 65536, 3*diffWindow - 65536} {
		p[0] = byte(i + 2)
		must.Succeed(t, v.WriteAt(ctx, p, off))
	}
	must.Succeed(t, a.store.Flush(ctx), b.m.Start(ctx, StartRequest{Peer: "a", Source: "web", Name: "copy"}))
	windows := 0
	b.m.o.reached = func(step string) error {
		if step != "fetch" {
			return b.reached(step)
		}
		windows++
		s, err := b.m.Status(ctx, "copy")
		must.Succeed(t, err)
		if left := s.Now.Left(); left < written-s.Now.Fetched || left > size || s.Now.ObjectTotal != size {
			t.Errorf("window %d: %d of %d bytes are left, %d are fetched of %d", windows, left, s.Now.ObjectTotal, s.Now.Fetched, written)
		}
		return nil
	}
	at, err := b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	if windows != 4 || at.Found != written || at.Fetched != written || at.Expected != written || at.Left() != 0 {
		t.Errorf("%d windows, %+v", windows, at)
	}

	link, _ := b.resolve(a.id)
	r := b.only()
	h, err := link.Hold(ctx, r.ID, r.Common.ID, ID{})
	must.Succeed(t, err)
	counts := func(h peer.Hold, want int64) {
		t.Helper()
		var p running
		p.size(h.Length())
		if p.progress.Left() != size {
			t.Errorf("at first %d bytes are left", p.progress.Left())
		}
		b.m.count(ctx, &p, h)
		if p.progress.Left() != want {
			t.Errorf("%d bytes are left once all was counted, want %d", p.progress.Left(), want)
		}
	}
	counts(h, written)
	a.off = true // what could not be counted is bounded
	counts(h, size)
	a.off = false
	must.Succeed(t, h.Release(ctx))
}
