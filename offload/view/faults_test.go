package view

import (
	"errors"
	"slices"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
)

// TestMirror_LegFails: a write succeeds if one leg fails. The leg is not read
// afterwards, nor after a restart, until a resync.
func TestMirror_LegFails(t *testing.T) {
	for _, c := range []struct {
		what  string
		fail  func(f *faulty, on bool)
		write func(m *Mirror, p []byte) error
	}{
		{"write", func(f *faulty, on bool) { f.writes.Store(on) }, func(m *Mirror, p []byte) error { return m.WriteAt(ctx, p, 4096) }},
		{"flush", func(f *faulty, on bool) { f.flushes.Store(on) }, func(m *Mirror, p []byte) error {
			return errors.Join(m.WriteAt(ctx, p, 4096), m.Flush(ctx))
		}},
	} {
		for leg := range 2 {
			t.Run(c.what, func(t *testing.T) {
				b := start(t)
				const size = 64 << 10
				bad := &faulty{Volume: b.outside(size)}
				legs := []Device{b.base(b.volume(t, size)), b.base(b.volume(t, size))}
				legs[leg] = b.base(bad)
				m := b.mirror(t, legs...)
				m.resyncs.Wait()
				must.Succeed(t, m.WriteAt(ctx, pattern(1, size), 0))
				c.fail(bad, true)
				must.Succeed(t, c.write(m, pattern(2, 8192)))
				if got := m.InSync(); len(got) != 1 || got[0] != m.Legs[1-leg].ID {
					t.Fatalf("in sync: %v", got)
				}
				want := pattern(1, size)
				copy(want[4096:], pattern(2, 8192))
				same(t, "after the failure", contents(t, m), want)
				must.Succeed(t, m.Close(ctx))

				again, err := OpenMirror(ctx, m.MirrorConfig) // the leg still fails
				must.Succeed(t, err)
				again.resyncs.Wait()
				if got := again.InSync(); len(got) != 1 || got[0] != m.Legs[1-leg].ID {
					t.Fatalf("in sync after a restart: %v", got)
				}
				must.Succeed(t, again.WriteAt(ctx, pattern(3, 4096), 0))
				copy(want, pattern(3, 4096))
				c.fail(bad, false)
				must.Succeed(t, again.Resync(ctx))
				if got := again.InSync(); len(got) != 2 {
					t.Fatalf("in sync after a resync: %v", got)
				}
				same(t, "the leg that failed", contents(t, bad), want)
				must.Succeed(t, again.Close(ctx))
			})
		}
	}
}

// TestMirror_ReadFails: after a read error of a leg, or a mismatch in its verify view,
// a read returns the data of another leg. No leg is dropped.
func TestMirror_ReadFails(t *testing.T) {
	b := start(t)
	const size = 64 << 10
	bad, other := &faulty{Volume: b.outside(size)}, b.volume(t, size)
	checked := b.verify(t, b.base(other))
	m := b.mirror(t, b.base(bad), checked)
	m.resyncs.Wait()
	must.Succeed(t, m.WriteAt(ctx, pattern(1, size), 0))
	bad.reads.Store(true)
	same(t, "read", contents(t, m), pattern(1, size))
	must.Succeed(t, other.WriteAt(ctx, []byte{7}, 5000))
	if err := m.ReadAt(ctx, make([]byte, 8192), 4096); !errors.Is(err, errInjected) {
		t.Errorf("read with both legs damaged: %v", err)
	}
	bad.reads.Store(false)
	same(t, "read", contents(t, m), pattern(1, size))
	if len(m.InSync()) != 2 {
		t.Errorf("in sync: %v", m.InSync())
	}
}

// TestMirror_AllLegsFail: a write that all legs fail returns an error and drops no leg.
func TestMirror_AllLegsFail(t *testing.T) {
	b := start(t)
	a, c := &faulty{Volume: b.outside(8192)}, &faulty{Volume: b.outside(8192)}
	m := b.mirror(t, b.base(a), b.base(c))
	m.resyncs.Wait()
	a.writes.Store(true)
	c.writes.Store(true)
	if err := m.WriteAt(ctx, pattern(1, 512), 0); !errors.Is(err, errInjected) {
		t.Errorf("write: %v", err)
	}
	if err := m.Unmap(ctx, 0, 512); !errors.Is(err, errInjected) {
		t.Errorf("unmap: %v", err)
	}
	if len(m.InSync()) != 2 {
		t.Errorf("in sync: %v", m.InSync())
	}
	a.writes.Store(false)
	c.writes.Store(false)
}

// TestMirror_OffloadWriteFails: a leg that fails an offload write is dropped.
func TestMirror_OffloadWriteFails(t *testing.T) {
	b := start(t)
	const size = 64 << 10
	bad := &faulty{Volume: b.outside(size)}
	m := b.mirror(t, b.base(bad), b.base(b.volume(t, size)))
	m.resyncs.Wait()
	src := b.volume(t, size)
	must.Succeed(t, src.WriteAt(ctx, pattern(5, size), 0))
	token, n := b.populate(t, src, blockdev.Range{Length: size})
	bad.writes.Store(true)
	s := NewStack(m, NewGate())
	b.writeUsing(t, token, s, 0, n)
	same(t, "copy", contents(t, s), pattern(5, size))
	if got := m.InSync(); !slices.Equal(got, []string{"leg1"}) {
		t.Errorf("in sync: %v", got)
	}
	// The token is of the other leg.
	token, n = b.populate(t, s, blockdev.Range{Length: size})
	dst := b.volume(t, size)
	b.writeUsing(t, token, dst, 0, n)
	same(t, "copy of the copy", contents(t, dst), pattern(5, size))
}

// TestVerify_Mismatch: a changed byte causes ErrMismatch with its block for reads
// of whole and partial blocks and for partial writes. After the block is rewritten,
// reads succeed.
func TestVerify_Mismatch(t *testing.T) {
	b := start(t)
	const size = 40 << 10
	below := b.volume(t, size)
	v := b.verify(t, b.base(below))
	must.Succeed(t, v.WriteAt(ctx, pattern(1, size), 0))
	must.Succeed(t, below.WriteAt(ctx, []byte{0xAA}, 3*4096+77))
	bad := func(what string, err error) {
		t.Helper()
		corrupt, ok := errors.AsType[*blockdev.CorruptError](err)
		if !ok || corrupt.Offset != 3*4096 || !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad("read", v.ReadAt(ctx, make([]byte, size), 0))
	bad("read of a sector", v.ReadAt(ctx, make([]byte, 512), 3*4096+512))
	bad("write of a sector", v.WriteAt(ctx, make([]byte, 512), 3*4096+512))
	bad("write with a part at its end", v.WriteAt(ctx, make([]byte, 4096), 2*4096+512))
	bad("write with a part at its beginning", v.WriteAt(ctx, make([]byte, 4096), 3*4096+512))
	must.Succeed(t, v.ReadAt(ctx, make([]byte, 3*4096), 0))
	must.Succeed(t, v.WriteAt(ctx, pattern(2, 4096), 3*4096))
	must.Succeed(t, v.ReadAt(ctx, make([]byte, size), 0))
}

// TestVerify_OffloadWrite: an offload write removes the checksums of its range, and no
// others.
func TestVerify_OffloadWrite(t *testing.T) {
	b := start(t)
	const size = 64 << 10
	below := b.volume(t, size)
	v := b.verify(t, b.base(below))
	s := NewStack(v, NewGate())
	must.Succeed(t, s.WriteAt(ctx, pattern(1, size), 0))
	token, _ := b.populate(t, s, blockdev.Range{Length: size})
	b.writeUsing(t, token, s, 8192, 8192)
	want := pattern(1, size)
	copy(want[8192:], pattern(1, 8192))
	same(t, "copy", contents(t, s), want)
	sums := make([]byte, SumsBytes(size))
	must.Succeed(t, v.sums.ReadAt(ctx, sums, 0))
	for i := range size / 4096 {
		if known := hasSum(sums[8*i:][:8]); known != (i != 2 && i != 3) {
			t.Errorf("block %d has a checksum: %t", i, known)
		}
	}
	must.Succeed(t, below.WriteAt(ctx, []byte{1}, 4096))
	if err := s.ReadAt(ctx, make([]byte, 4096), 4096); !errors.Is(err, blockdev.ErrCorrupt) {
		t.Errorf("a block next to the copy: %v", err)
	}
}

// TestOrigin_CopyFails: if data to be overwritten cannot be read, the write fails and
// the snapshot is unchanged.
func TestOrigin_CopyFails(t *testing.T) {
	b := start(t)
	const size = 256 << 10
	below := &faulty{Volume: b.outside(size)}
	must.Succeed(t, below.WriteAt(ctx, pattern(1, size), 0))
	o := b.origin(t, b.base(below))
	below.reads.Store(true)
	if err := o.WriteAt(ctx, pattern(2, 512), 0); !errors.Is(err, errInjected) {
		t.Errorf("write: %v", err)
	}
	below.reads.Store(false)
	must.Succeed(t, o.WriteAt(ctx, pattern(2, 512), 70<<10))
	if n := o.Copied(); n != minChunk {
		t.Errorf("%d bytes were copied", n)
	}
	same(t, "snapshot", contents(t, NewSnapshot(o)), pattern(1, size))
	again, err := OpenOrigin(o.OriginConfig)
	must.Succeed(t, err)
	same(t, "snapshot after a restart", contents(t, NewSnapshot(again)), pattern(1, size))
	if err := NewSnapshot(o).WriteAt(ctx, nil, 0); !errors.Is(err, blockdev.ErrReadOnly) {
		t.Errorf("a write to the snapshot: %v", err)
	}
}
