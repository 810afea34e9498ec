package view

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/tokens"
)

// TestStripe_Offload: a token of a stripe represents the whole range at a point in
// time, and creating it writes no data. An offload write ends at each stripe unit.
func TestStripe_Offload(t *testing.T) {
	b := start(t)
	const unit, size = 64 << 10, 8 << 20
	legs := []Device{b.base(b.volume(t, size)), b.base(b.volume(t, size)), b.base(b.volume(t, size))}
	s := NewStack(stripeOf(t, unit, legs...), NewGate())
	data := pattern(1, s.Size())
	must.Succeed(t, s.WriteAt(ctx, data, 0))
	const off, length = unit/2 + 4096, 5<<20 + 512
	live := b.store.LiveBytes()
	token, n := b.populate(t, s, blockdev.Range{Offset: off, Length: length})
	if n != length {
		t.Errorf("the token represents %d bytes", n)
	}
	dst, back := b.volume(t, size), NewStack(stripeOf(t, unit, b.base(b.volume(t, size)), b.base(b.volume(t, size))), NewGate())
	b.writeUsing(t, token, dst, 4096, n)
	b.writeUsing(t, token, back, 8192, n)
	if moved := b.store.LiveBytes() - live; moved > 3*4096 { // the last block is 512 bytes long
		t.Errorf("%d bytes were written", moved)
	}
	same(t, "copy to a volume", contents(t, dst)[4096:][:n], data[off:][:n])
	same(t, "copy to a stripe", contents(t, back)[8192:][:n], data[off:][:n])
	must.Succeed(t, s.WriteAt(ctx, pattern(2, s.Size()), 0))
	b.writeUsing(t, token, dst, 0, n)
	same(t, "copy after the stripe has changed", contents(t, dst)[:n], data[off:][:n])

	// Offload writes: a call of the stripe's Map ends at a stripe unit.
	src := b.volume(t, size)
	must.Succeed(t, src.WriteAt(ctx, pattern(3, size), 0))
	object, _ := offload.ExtentStore{Store: b.store}.Object(src)
	held, err := object.Snapshot(ctx, []blockdev.Range{{Length: size}}, nil)
	must.Succeed(t, err)
	defer held.Release()
	for _, c := range []struct{ dst, length, want int64 }{
		{0, size, unit}, {4096, size - 4096, unit - 4096}, {unit - 512, 4096, 512}, {unit, 4096, 4096},
	} {
		if n, err := s.Map(ctx, c.dst, held, 0, c.length); err != nil || n != c.want {
			t.Errorf("map of %d bytes to %d: %d, %v; want %d", c.length, c.dst, n, err, c.want)
		}
	}
}

// TestStack_MaxPieces: a token represents at most MaxPieces pieces, and a copy of more
// takes several tokens.
func TestStack_MaxPieces(t *testing.T) {
	b := start(t)
	const unit, size = 4096, 40 << 20
	s := NewStack(stripeOf(t, unit, b.base(b.volume(t, size)), b.base(b.volume(t, size))), NewGate())
	mark := func(off int64, seed byte) { must.Succeed(t, s.WriteAt(ctx, pattern(seed, 8192), off)) }
	mark(0, 1)
	mark(MaxPieces*unit-4096, 2)
	mark(2*size-8192, 3)
	_, n := b.populate(t, s, blockdev.Range{Length: 2 * size})
	if n <= 0 || n > MaxPieces*unit {
		t.Errorf("the token represents %d bytes", n)
	}
	dst := b.volume(t, 2*size)
	var moved int64
	must.Succeed(t, b.manager.Engine().Copy(ctx, s, 0, dst, 0, 2*size, func(n int64) { moved += n }))
	if moved != 2*size {
		t.Errorf("%d bytes moved", moved)
	}
	same(t, "copy", contents(t, dst), contents(t, s))
}

// TestStripe_PointInTime: a write of one value to all legs of a stripe is in a token
// completely or not at all.
func TestStripe_PointInTime(t *testing.T) {
	b := start(t)
	const unit = 4096
	s := NewStack(stripeOf(t, unit, b.base(b.volume(t, 64<<10)), b.base(b.volume(t, 64<<10)), b.base(b.outside(64<<10))), NewGate())
	var stop atomic.Bool
	var writers sync.WaitGroup
	writers.Go(func() {
		p := make([]byte, 3*unit)
		for value := byte(1); !stop.Load(); value++ {
			for i := range p {
				p[i] = value
			}
			if err := s.WriteAt(ctx, p, 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	dst := b.volume(t, 64<<10)
	for range 50 {
		token, n := b.populate(t, s, blockdev.Range{Length: 3 * unit})
		b.writeUsing(t, token, dst, 0, n)
		got := contents(t, dst)[:n]
		for i, v := range got {
			if v != got[0] {
				t.Fatalf("byte %d is %d, byte 0 is %d", i, v, got[0])
			}
		}
	}
	stop.Store(true)
	writers.Wait()
}

// stalled is a volume whose writes block.
type stalled struct {
	blockdev.Volume
	begun, release chan struct{}
}

func (v *stalled) WriteAt(ctx context.Context, p []byte, off int64) error {
	close(v.begun)
	<-v.release
	return v.Volume.WriteAt(ctx, p, off)
}

// TestGate_ContextEnds: an offload read that waits for a blocked writer ends with its
// context.
func TestGate_ContextEnds(t *testing.T) {
	b := start(t)
	below := &stalled{b.outside(8192), make(chan struct{}), make(chan struct{})}
	s := NewStack(b.base(below), NewGate())
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := s.WriteAt(ctx, make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
	<-below.begun
	limited, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := s.CompareAndWrite(limited, make([]byte, 512), make([]byte, 512), 0); err == nil {
		t.Error("the offload read did not wait")
	}
	close(below.release)
	writer.Wait()
}

// TestSnapshot_Offload: a token of a snapshot represents both copied and unchanged
// chunks. A write by token also copies chunks first.
func TestSnapshot_Offload(t *testing.T) {
	b := start(t)
	const size = 1 << 20
	below := b.volume(t, size)
	must.Succeed(t, below.WriteAt(ctx, pattern(1, size), 0))
	gate := NewGate()
	o := b.origin(t, b.base(below))
	live, snap := NewStack(o, gate), NewStack(NewSnapshot(o), gate)
	src := b.volume(t, size)
	must.Succeed(t, src.WriteAt(ctx, pattern(2, size), 0))
	token, _ := b.populate(t, src, blockdev.Range{Length: size})
	b.writeUsing(t, token, live, 128<<10, 300<<10)
	must.Succeed(t, live.Unmap(ctx, 700<<10, 100<<10))
	same(t, "snapshot", contents(t, snap), pattern(1, size))
	if n := o.Copied(); n <= 0 || n > 600<<10 {
		t.Errorf("%d bytes were copied", n)
	}
	token, n := b.populate(t, snap, blockdev.Range{Length: size})
	if n != size {
		t.Errorf("the token represents %d bytes", n)
	}
	dst := b.volume(t, size)
	b.writeUsing(t, token, dst, 0, size)
	same(t, "copy of the snapshot", contents(t, dst), pattern(1, size))
}

// TestStack_TokenTypes: a view has point-in-time tokens and checksums. Creating tokens
// that name a volume fails.
func TestStack_TokenTypes(t *testing.T) {
	b := start(t)
	const size = 1 << 20
	s := NewStack(stripeOf(t, 65536, b.base(b.volume(t, size)), b.base(b.volume(t, size))), NewGate())
	must.Succeed(t, s.WriteAt(ctx, pattern(1, size), 0))
	src := tokens.Source{Volume: s, LU: tokens.LU{BlockLength: 512}}
	ranges := []blockdev.Range{{Length: size}}
	for _, kind := range []tokens.RODType{tokens.RODTypeHash, tokens.RODTypeAccessUponReference, tokens.RODTypePointInTimeChangeVulnerable} {
		if _, err := b.manager.OffloadRead(ctx, src, ranges, tokens.ReadOptions{Type: kind}); err == nil {
			t.Errorf("a token of type %v was created", kind)
		}
	}
	r, err := b.manager.OffloadRead(ctx, src, ranges, tokens.ReadOptions{Type: tokens.RODTypeChecksum})
	must.Succeed(t, err)
	verdict, err := b.manager.Verify(ctx, r.Token, offload.Destination{Volume: s, BlockLength: 512}, ranges)
	if err != nil || verdict != tokens.Match {
		t.Errorf("%v, %v", verdict, err)
	}
	must.Succeed(t, s.WriteAt(ctx, pattern(2, 512), 70000/512*512))
	if verdict, err := b.manager.Verify(ctx, r.Token, offload.Destination{Volume: s, BlockLength: 512}, ranges); err != nil || verdict == tokens.Match {
		t.Errorf("%v, %v", verdict, err)
	}
}
