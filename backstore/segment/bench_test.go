package segment

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func BenchmarkSet_Append(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("%dKiB", 4*n), func(b *testing.B) {
			s := open(b, vfs.OS(), b.TempDir(), Options{})
			p := blocks(1, n)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				a, err := s.Append(p)
				if err != nil {
					b.Fatal(err)
				}
				if a.Block == 1 && a.Segment > 8 {
					must.Succeed(b, s.Remove(a.Segment-8))
				}
			}
		})
	}
}

func BenchmarkSet_Read4KiB(b *testing.B) {
	s := open(b, vfs.OS(), b.TempDir(), Options{SegmentBlocks: 1025})
	var places []Addr
	for i := range 16 * 1024 {
		places = append(places, appendTo(b, s, blocks(i, 1)))
	}
	b.SetBytes(BlockLength)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(1, 2))
		p := make([]byte, BlockLength)
		for pb.Next() {
			if err := s.ReadAt(places[rng.IntN(len(places))], p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSet_Sync4KiB(b *testing.B) {
	s := open(b, vfs.OS(), b.TempDir(), Options{})
	p := blocks(1, 1)
	b.ReportAllocs()
	for b.Loop() {
		appendTo(b, s, p)
		must.Succeed(b, s.Sync())
	}
}
