package view

import (
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/tokens"
)

// benchStacks calls run with a stack of each kind over volumes of 512 MiB in the store.
func benchStacks(b *testing.B, run func(b *testing.B, bed *bed, s *Stack)) {
	const size = 512 << 20
	for _, c := range []struct {
		kind string
		make func(bed *bed) Device
	}{
		{"volume", func(bed *bed) Device { return bed.base(bed.volume(b, size)) }},
		{"partition", func(bed *bed) Device {
			v, err := NewPartition(bed.base(bed.volume(b, size)), 1<<20, size-2<<20)
			must.Succeed(b, err)
			return v
		}},
		{"stripe", func(bed *bed) Device {
			return stripeOf(b, 64<<10, bed.base(bed.volume(b, size)), bed.base(bed.volume(b, size)))
		}},
		{"mirror", func(bed *bed) Device {
			m := bed.mirror(b, bed.base(bed.volume(b, size)), bed.base(bed.volume(b, size)))
			m.resyncs.Wait()
			return m
		}},
		{"write-through", func(bed *bed) Device { return bed.cache(bed.base(bed.volume(b, size)), false, 16384) }},
		{"write-back", func(bed *bed) Device { return bed.cache(bed.base(bed.volume(b, size)), true, 16384) }},
		{"verify", func(bed *bed) Device { return bed.verify(b, bed.base(bed.volume(b, size))) }},
		{"origin", func(bed *bed) Device { return bed.origin(b, bed.base(bed.volume(b, size))) }},
	} {
		b.Run(c.kind, func(b *testing.B) {
			bed := newBed(b)
			defer bed.close(b)
			run(b, bed, NewStack(c.make(bed), NewGate()))
		})
	}
}

// BenchmarkRead4K reads written blocks within 16 MiB.
func BenchmarkRead4K(b *testing.B) {
	benchStacks(b, func(b *testing.B, _ *bed, s *Stack) {
		const area = 16 << 20
		must.Succeed(b, s.WriteAt(ctx, pattern(1, area), 0))
		p := make([]byte, 4096)
		b.SetBytes(4096)
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			must.Succeed(b, s.ReadAt(ctx, p, i*7*4096%area))
		}
	})
}

// BenchmarkWrite4K overwrites blocks within 16 MiB.
func BenchmarkWrite4K(b *testing.B) {
	benchStacks(b, func(b *testing.B, _ *bed, s *Stack) {
		const area = 16 << 20
		must.Succeed(b, s.WriteAt(ctx, pattern(1, area), 0))
		p := pattern(2, 4096)
		b.SetBytes(4096)
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			must.Succeed(b, s.WriteAt(ctx, p, i*7*4096%area))
		}
	})
}

// BenchmarkOffload copies 256 MiB within a view by token, to an offset 1 MiB higher.
func BenchmarkOffload(b *testing.B) {
	benchStacks(b, func(b *testing.B, bed *bed, s *Stack) {
		const length = 256 << 20
		for off := int64(0); off < length; off += 16 << 20 {
			must.Succeed(b, s.WriteAt(ctx, pattern(byte(off>>24), 16<<20), off))
		}
		b.SetBytes(length)
		made := 0
		for b.Loop() {
			for done := int64(0); done < length; made++ {
				token, n := bed.populate(b, s, blockdev.Range{Offset: done, Length: length - done})
				bed.writeUsing(b, token, s, done+1<<20, n)
				done += n
				must.Succeed(b, bed.manager.Delete(ctx, token.ID(), tokens.Deleted))
			}
		}
		b.ReportMetric(float64(made)/float64(b.N), "tokens/op")
	})
}
