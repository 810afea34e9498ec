package vhd

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/offload/view"
	"odx/tokens"
)

// TestConcurrentUse: many at once read, write, unmap and copy by token parts of one
// differencing disk that share its blocks, and each sees what it did.
func TestConcurrentUse(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		const size, users, share = 8 * mib, 8, mib
		want := noise(1, size)
		b.raw(t, "base.img", want)
		b.do(t, Request{Operation: Convert, Source: "base.img", Destination: "base" + ext, BlockLength: 2 * mib})
		b.do(t, Request{Operation: Snapshot, Source: "base" + ext, Destination: "child" + ext})
		s, err := b.Serve(ctx, "child"+ext)
		must.Succeed(t, err)
		lu := view.NewStack(s.Disk, view.NewGate())
		var all sync.WaitGroup
		for user := range users {
			all.Go(func() { b.use(t, lu, user, want[user*share:][:share]) })
		}
		all.Wait()
		must.Succeed(t, s.Close(ctx))
		b.same(t, "child"+ext, want)
	})
}

// use works on a user's share of a disk, which holds want before and after.
func (b *bed) use(t *testing.T, lu *view.Stack, user int, want []byte) {
	rng := rand.New(rand.NewPCG(uint64(user), 3))
	first := int64(user) * int64(len(want))
	for range 60 {
		off := rng.Int64N(int64(len(want))/512) * 512
		n := min(512*(1+rng.Int64N(64)), int64(len(want))-off)
		part := want[off : off+n]
		var err error
		switch rng.IntN(4) {
		case 0:
			err = lu.Unmap(ctx, first+off, n)
			clear(part)
		case 1:
			from := rng.Int64N(int64(len(want))-n+1) / 512 * 512
			moved := bytes.Clone(want[from : from+n])
			err = b.tokens.Engine().Copy(ctx, lu, first+from, lu, first+off, n, func(int64) {})
			copy(part, moved)
		default:
			copy(part, noise(rng.Uint64(), n))
			err = lu.WriteAt(ctx, part, first+off)
		}
		got := make([]byte, len(want))
		if err == nil {
			err = lu.ReadAt(ctx, got, first)
		}
		if err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(got, want) {
			t.Errorf("user %d: %s", user, difference(got, want))
			return
		}
	}
}

// TestTokenOfDisk: a token of a disk represents its bytes as they were when it was created, holes, parts
// of blocks and the parent's bytes included, and none of them move.
func TestTokenOfDisk(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		b.do(t, Request{Operation: Create, Destination: "base" + ext, Size: 32 * mib, BlockLength: mib})
		want := make([]byte, 32*mib)
		put := func(name string, off, n int64) {
			p := noise(uint64(off), n)
			b.write(t, name, p, off)
			want = with(want, p, off)
		}
		put("base"+ext, 4*mib, 3*mib)
		b.do(t, Request{Operation: Snapshot, Source: "base" + ext, Destination: "child" + ext})
		put("child"+ext, 5*mib+8192, 64<<10)
		put("child"+ext, 20*mib, 2*mib)
		s, err := b.Serve(ctx, "child"+ext)
		must.Succeed(t, err)
		lu := view.NewStack(s.Disk, view.NewGate())
		live := b.store.LiveBytes()
		token, err := b.tokens.OffloadRead(ctx, tokens.Source{Volume: lu, LU: tokens.LU{BlockLength: 512}},
			[]blockdev.Range{{Offset: 0, Length: 32 * mib}}, tokens.ReadOptions{})
		must.Succeed(t, err)
		must.Succeed(t, lu.Unmap(ctx, 0, 32*mib))
		if token.Represented != 32*mib {
			t.Errorf("it stands for %d bytes", token.Represented)
		}
		v, err := b.store.CreateVolume(ctx, "v", 32*mib)
		must.Succeed(t, err)
		n, err := b.tokens.OffloadWrite(ctx, token.Token, 0, offload.Destination{Volume: v, BlockLength: 512},
			[]blockdev.Range{{Offset: 0, Length: 32 * mib}}, tokens.WriteOptions{})
		must.Succeed(t, err)
		got := make([]byte, 32*mib)
		must.Succeed(t, v.ReadAt(ctx, got, 0))
		if n != 32*mib || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %s", n, difference(got, want))
		}
		// The bitmaps of the blocks that were unmapped are new.
		if grown := b.store.LiveBytes() - live; grown > 32*4096 {
			t.Errorf("%d bytes are stored that were not", grown)
		}
		must.Succeed(t, s.Close(ctx))
	})
}

// BenchmarkServed is what a LUN on a virtual disk costs in addition to the volume below it.
func BenchmarkServed(b *testing.B) {
	for _, ext := range []string{".img", ".vhd", ".vhdx"} {
		bed := newBed(b)
		bed.do(b, Request{Operation: Create, Destination: "d" + ext, Size: 64 * mib})
		bed.bench(b, "d"+ext)
		bed.close(b)
	}
}

func (b *bed) bench(t *testing.B, name string) {
	var v blockdev.Volume
	if FormatOf(name) == "raw" {
		f, err := b.store.File(name)
		must.Succeed(t, err)
		v = f
	} else {
		s, err := b.Serve(ctx, name)
		must.Succeed(t, err)
		defer s.Close(ctx)
		v = s
	}
	p := noise(1, 64*mib)
	must.Succeed(t, v.WriteAt(ctx, p, 0))
	rng := rand.New(rand.NewPCG(1, 1))
	for _, length := range []int64{4096, 256 << 10} {
		at := func() int64 { return rng.Int64N(64*mib/length) * length }
		t.Run(name+"/read/"+[]string{"4KiB", "256KiB"}[length>>18], func(t *testing.B) {
			t.ReportAllocs()
			t.SetBytes(length)
			for t.Loop() {
				must.Succeed(t, v.ReadAt(ctx, p[:length], at()))
			}
		})
		t.Run(name+"/write/"+[]string{"4KiB", "256KiB"}[length>>18], func(t *testing.B) {
			t.ReportAllocs()
			t.SetBytes(length)
			for t.Loop() {
				off := at()
				must.Succeed(t, v.WriteAt(ctx, p[off:off+length], off))
			}
		})
	}
}
