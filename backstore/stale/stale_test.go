package stale

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/meta"
)

// modelBlocks is how many blocks TestBlocks_Model has.
const modelBlocks = 64

// TestBlocks_Model compares a list with a flag for each block.
func TestBlocks_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list, other Blocks
		var want, wantOther [modelBlocks]bool
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			first := rapid.Uint64Range(0, modelBlocks).Draw(t, "first")
			end := rapid.Uint64Range(first, modelBlocks).Draw(t, "end")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				list.Add(first, end)
				set(&want, first, end, true)
			case 1:
				list.Remove(first, end)
				set(&want, first, end, false)
			case 2:
				other, wantOther = list.Clone(), want
			default:
				to := rapid.Uint64Range(0, modelBlocks-(end-first)).Draw(t, "to")
				list.CopyFrom(&other, to, first, end-first)
				for i := range end - first {
					want[to+i] = want[to+i] || wantOther[first+i]
				}
			}
			compare(t, &list, &want)
			compare(t, &other, &wantOther)
		}
	})
}

func set(blocks *[modelBlocks]bool, first, end uint64, stale bool) {
	for i := first; i < end; i++ {
		blocks[i] = stale
	}
}

// compare checks each block, and that a list has no more spans than it needs.
func compare(t *rapid.T, list *Blocks, want *[modelBlocks]bool) {
	t.Helper()
	spans := 0
	for i, stale := range want {
		err := list.Check(uint64(i), 1)
		if stale != errors.Is(err, meta.ErrDamaged) {
			t.Fatalf("block %d: %v, want stale: %v, in %v", i, err, stale, list.spans)
		}
		if stale && (i == 0 || !want[i-1]) {
			spans++
		}
	}
	if len(list.spans) != spans {
		t.Fatalf("%d spans, want %d: %v", len(list.spans), spans, list.spans)
	}
	if err := list.Check(0, modelBlocks); (err != nil) != (spans > 0) {
		t.Fatalf("all blocks: %v with %d spans", err, spans)
	}
}
