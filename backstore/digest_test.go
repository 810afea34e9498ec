package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// The digest of a snapshot is that of its bytes, however they are stored: aligned
// or not, in extents of any length, with holes and zeros, deduplicated or not.
func TestDigestDependsOnTheBytesAlone(t *testing.T) {
	ctx := context.Background()
	for _, o := range []Options{{DedupUnit: 4 << 10}, {DedupUnit: 64 << 10}, {DedupUnit: 4 << 10, StoreDuplicates: true}} {
		t.Run(fmt.Sprintf("unit %d, duplicates stored %t", o.DedupUnit, o.StoreDuplicates), func(t *testing.T) {
			options := newDisk().options(o)
			options.StoreDuplicates = o.StoreDuplicates
			s, err := Open(ctx, options)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			const size = 2 << 20
			v := createVolume(t, s, "v", size)
			model := make([]byte, size)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 60 {
				off, n := rng.Int64N(size), rng.IntN(100<<10)
				p := randomBytes(rng.Uint64(), min(n, int(size-off)))
				if rng.IntN(3) == 0 {
					clear(p)
				}
				if err := v.WriteAt(ctx, p, off); err != nil {
					t.Fatal(err)
				}
				copy(model[off:], p)
			}
			for range 60 {
				ranges := make([]Range, 1+rng.IntN(3))
				var rod []byte
				for i := range ranges {
					unit := []int64{1, 512, 4096}[rng.IntN(3)]
					off := rng.Int64N(size) / unit * unit
					ranges[i] = Range{Offset: off, Length: rng.Int64N(size-off+1) / unit * unit}
					rod = append(rod, model[off:off+ranges[i].Length]...)
				}
				n, err := v.Snapshot(ctx, ranges, nil)
				if err != nil {
					t.Fatal(err)
				}
				from := rng.Int64N(int64(len(rod)) + 1)
				length := rng.Int64N(int64(len(rod)) - from + 1)
				got, err := n.Digest(ctx, from, length)
				n.Release()
				d := s.NewDigest()
				for p := rod[from : from+length]; len(p) > 0; {
					k := min(len(p), 1+rng.IntN(9000))
					d.Write(p[:k])
					p = p[k:]
				}
				if err != nil || got != d.Sum() {
					t.Fatalf("ranges %v, %d bytes at %d: the digest is not that of the bytes; %v", ranges, length, from, err)
				}
			}
		})
	}
}

func TestDigestsDiffer(t *testing.T) {
	ctx := context.Background()
	s, other := newDisk().open(t, 4<<10), newDisk().open(t, 4<<10)
	defer s.Close()
	defer other.Close()
	seen := map[[32]byte]string{}
	add := func(name string, s *Store, p []byte) {
		d := s.NewDigest()
		d.Write(p)
		sum := d.Sum()
		if before, ok := seen[sum]; ok {
			t.Errorf("%s and %s have one digest", name, before)
		}
		seen[sum] = name
	}
	p := randomBytes(1, 8192)
	add("nothing", s, nil)
	add("data", s, p)
	add("data in another store", other, p)
	add("part of it", s, p[:8191])
	add("its blocks exchanged", s, append(bytes.Clone(p[4096:]), p[:4096]...))
	add("zeros", s, make([]byte, 8192))
	add("fewer zeros", s, make([]byte, 8191))
	add("more zeros", s, make([]byte, 12288))
	v := createVolume(t, s, "v", 1<<20)
	n, err := v.Snapshot(ctx, []Range{{Offset: 0, Length: 4096}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release()
	if _, err := n.Digest(ctx, 4096, 1); !errors.Is(err, ErrRange) {
		t.Errorf("beyond the end: %v", err)
	}
}

// BenchmarkDigest takes the digest of 256 MiB from the extent table.
func BenchmarkDigest(b *testing.B) {
	const size = 256 << 20
	ctx := context.Background()
	_, v := benchStore(b, size)
	benchFill(b, v, size)
	n, err := v.Snapshot(ctx, []Range{{Offset: 0, Length: size}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Release()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Digest(ctx, 0, size); err != nil {
			b.Fatal(err)
		}
	}
}
