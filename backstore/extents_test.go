package backstore

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestExtentsTellMappedFromUnmapped(t *testing.T) {
	const blocks = 1 << 20 // 4 GiB: holes of whole nodes
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", blocks*BlockLength)
	rng := rand.New(rand.NewPCG(5, 5))
	mapped := make([]bool, blocks)
	for range 60 {
		at := rng.IntN(blocks - 600)
		if rng.IntN(2) == 0 {
			at = rng.IntN(1500)
		}
		n := 1 + rng.IntN(600)
		if rng.IntN(3) == 0 {
			if err := v.Unmap(ctx, int64(at)*BlockLength, int64(n)*BlockLength); err != nil {
				t.Fatal(err)
			}
			clear(mapped[at : at+n])
			continue
		}
		if err := v.WriteAt(ctx, randomBytes(uint64(at), n*BlockLength), int64(at)*BlockLength); err != nil {
			t.Fatal(err)
		}
		copy(mapped[at:at+n], slices.Repeat([]bool{true}, n))
	}
	off, length := int64(512), int64(blocks)*BlockLength-1024
	next, before := off, false
	err := v.Extents(ctx, off, length, func(part Range, is bool) bool {
		if part.Offset != next || part.Length <= 0 {
			t.Fatalf("part %+v, want one at %d", part, next)
		}
		if part.Offset != off && is == before {
			t.Fatalf("part %+v is of the same kind as the one before", part)
		}
		for b := part.Offset / BlockLength; b*BlockLength < part.Offset+part.Length; b++ {
			if mapped[b] != is {
				t.Fatalf("block %d is said to be mapped: %v", b, is)
			}
		}
		next, before = part.Offset+part.Length, is
		return true
	})
	if err != nil || next != off+length {
		t.Fatal(err, next)
	}
	calls := 0
	if err := v.Extents(ctx, 0, v.Size(), func(Range, bool) bool { calls++; return calls < 3 }); err != nil || calls != 3 {
		t.Errorf("%d calls after the third said to stop: %v", calls, err)
	}
}
