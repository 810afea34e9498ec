package blockmap

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// BenchmarkForest_Copy shares a range of a 4 GiB tree, copies it from the share, and
// drops the share: the map's part of a copy by token. Shifted copies go to a new offset
// each time.
func BenchmarkForest_Copy(b *testing.B) {
	const mib = 256 // blocks
	for _, bm := range []struct {
		mib, shift uint64
		scattered  bool // extents in random order, as after random writes
	}{{256, 0, false}, {1020, 0, false}, {256, 1, false}, {1024, 1, false}, {256, 1, true}} {
		b.Run(fmt.Sprintf("%d MiB shifted by %d blocks scattered %v", bm.mib, bm.shift, bm.scattered), func(b *testing.B) {
			f, r := filled(b, 1024*mib, bm.scattered)
			dst := Root{Level: r.Level + 1}
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				ranges := []Range{{0, bm.mib * mib}}
				if err := f.TouchShare(r, ranges); err != nil {
					b.Fatal(err)
				}
				made, err := f.Share(r, ranges)
				if err != nil {
					b.Fatal(err)
				}
				for done := uint64(0); done < bm.mib*mib; {
					n, err := f.Copy(&dst, bm.shift*(1+i*12347%mib)+done, made, done, bm.mib*mib-done, 256)
					if err != nil {
						b.Fatal(err)
					}
					done += n
				}
				if err := f.Drop(made); err != nil {
					b.Fatal(err)
				}
				for {
					more, err := f.Reap(16)
					if err != nil {
						b.Fatal(err)
					}
					if !more {
						break
					}
				}
			}
		})
	}
}

// filled returns a fully mapped tree with one extent per block, in block order or
// scattered.
func filled(b *testing.B, blocks uint64, scattered bool) (*Forest, Root) {
	b.Helper()
	kv, clock := meta.NewMem(), pages.NewClock()
	usage, err := extent.LoadUsage(kv)
	if err != nil {
		b.Fatal(err)
	}
	t := extent.NewTable(extent.Options{KV: kv, Clock: clock, Unit: 1, MaxBytes: 256 << 20, Usage: usage})
	f := New(Options{KV: kv, Clock: clock, Extents: t, MaxBytes: 64 << 20})
	slots := make([]extent.Slot, blocks)
	first := t.Allocate(int(blocks))
	for i := range slots {
		id := first + extent.ID(i)
		x := extent.Extent{Addr: segment.Addr{Segment: 1, Block: uint32(id)}, Blocks: 1}
		if err := t.Create(id, &x); err != nil {
			b.Fatal(err)
		}
		slots[i] = t.Slot(id, 0)
	}
	if scattered {
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(slots), func(i, k int) { slots[i], slots[k] = slots[k], slots[i] })
	}
	r := Root{Level: LevelFor(blocks)}
	if err := f.Set(&r, 0, slots); err != nil {
		b.Fatal(err)
	}
	return f, r
}
