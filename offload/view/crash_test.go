package view

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// crashed are the devices of TestStack_PowerCut, reopened after a power cut.
type crashed struct {
	*bed
	live, snap *Stack
	checked    *Verify
	mirror     *Mirror
}

// stack opens an origin over a verify view over a mirror, whose volumes exist.
func (b *bed) stack(t must.TB, size int64) crashed {
	t.Helper()
	volume := func(name string, size int64) *backstore.Volume {
		v, err := b.store.Volume(name)
		if err != nil {
			v, err = b.store.CreateVolume(ctx, name, size)
		}
		must.Succeed(t, err)
		return v
	}
	m, err := OpenMirror(ctx, MirrorConfig{
		Name: "m", Engine: b.manager.Engine(), Records: b.store, Log: logs.Discard(),
		Legs: []Leg{{Device: b.base(volume("a", size)), ID: "a"}, {Device: b.base(volume("b", size)), ID: "b"}},
	})
	must.Succeed(t, err)
	b.closers = append(b.closers, m.Close)
	checked, err := NewVerify("c", m, volume("sums", SumsBytes(size)), b.manager.Engine())
	must.Succeed(t, err)
	o, err := OpenOrigin(OriginConfig{Name: "o", Of: checked, Before: volume("before", OriginBytes(size)), Engine: b.manager.Engine(), Records: b.store})
	must.Succeed(t, err)
	gate := NewGate()
	return crashed{b, NewStack(o, gate), NewStack(NewSnapshot(o), gate), checked, m}
}

// powerCut is a state of the disk after a power cut, and the data that was durable
// before it.
type powerCut struct {
	disk    disk
	flushed []byte
	touched []bool // sectors written since
}

// history is the writes to the views before and during the power cut.
type history struct {
	mu      sync.Mutex
	flushed []byte
	touched []bool
	cuts    []powerCut
}

// cut records the current state of the disk. The caller holds mu, which guards the rng too.
func (h *history) cut(d disk, rng *rand.Rand) {
	h.cuts = append(h.cuts, powerCut{disk{d.fs.CrashClone(rng)}, h.flushed, slices.Clone(h.touched)})
}

// watch records the disk before some of its changes.
func (h *history) watch(d disk, rng *rand.Rand) {
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if kind.Changes() && rng.IntN(6) == 0 && len(h.cuts) < 4 {
			h.cut(d, rng)
		}
		return nil
	})
}

// TestStack_PowerCut: after a power cut at any change, all blocks match their
// checksums, the snapshot is unchanged, flushed data exists, and the legs are equal
// after the sync.
func TestStack_PowerCut(t *testing.T) {
	const size, sector = 256 << 10, 512
	rapid.Check(t, func(t *rapid.T) {
		b := newBed(t)
		s := b.stack(t, size)
		s.mirror.resyncs.Wait()
		first := pattern(1, size)
		must.Succeed(t, s.checked.WriteAt(ctx, first, 0)) // below the origin: the initial data of the snapshot
		must.Succeed(t, s.live.Flush(ctx))
		token, _ := b.populate(t, s.snap, blockdev.Range{Length: size})
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "what survives"), 0))
		h := &history{flushed: first, touched: make([]bool, size/sector)}
		h.watch(b.disk, rng)
		for i := range 16 {
			off := rapid.Int64Range(0, size/sector-16).Draw(t, "sector") * sector
			what := rapid.IntRange(0, 3).Draw(t, "what")
			if what < 3 {
				h.mu.Lock()
				for j := range int64(16) {
					h.touched[off/sector+j] = true
				}
				h.mu.Unlock()
			}
			switch what {
			case 0:
				must.Succeed(t, s.live.WriteAt(ctx, pattern(byte(i+2), 16*sector), off))
			case 1:
				b.writeUsing(t, token, s.live, off, 16*sector)
			case 2:
				must.Succeed(t, s.live.Unmap(ctx, off, 16*sector))
			case 3:
				must.Succeed(t, s.live.Flush(ctx))
				now := contents(t, s.live)
				h.mu.Lock()
				h.flushed = now
				clear(h.touched)
				h.mu.Unlock()
			}
		}
		b.disk.fs.SetHook(nil)
		h.mu.Lock() // a change that began before may still be in the hook
		h.cut(b.disk, rng)
		h.mu.Unlock()
		b.close(t)
		for _, cut := range h.cuts {
			cut.check(t, size, first)
		}
	})
}

// check opens and verifies a state after a power cut.
func (c *powerCut) check(t must.TB, size int64, first []byte) {
	t.Helper()
	b := open(t, c.disk)
	s := b.stack(t, size)
	got := contents(t, s.live) // no ErrMismatch
	for i, touched := range c.touched {
		if touched {
			copy(got[i*512:][:512], c.flushed[i*512:])
		}
	}
	same(t, "what was flushed", got, c.flushed)
	same(t, "snapshot", contents(t, s.snap), first)
	s.mirror.resyncs.Wait()
	same(t, "legs", contents(t, s.mirror.Legs[1]), contents(t, s.mirror.Legs[0]))
	b.close(t)
}
