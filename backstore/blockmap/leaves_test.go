package blockmap

import (
	"slices"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
)

// TestForest_Leaves: each leaf is visited once, in order, for any limit of nodes.
func TestForest_Leaves(t *testing.T) {
	m := newMachine(meta.NewMem(), pages.NewClock())
	r := Root{Level: 2}
	want := []uint64{0, 512, 512 * 512, 512*512*3 + 512*7, 512*512*512 - 512}
	for i, base := range want {
		if err := m.forest.Set(&r, base+3, []extent.Slot{extent.Slot(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, nodes := range []int{4, 5, 100} {
		var got []uint64
		for next := uint64(0); next < r.Blocks(); {
			was := next
			var err error
			next, err = m.forest.Leaves(r, next, nodes, func(base uint64, slots []extent.Slot) {
				if slots[3] == 0 || slots[4] != 0 {
					t.Errorf("leaf %d has slots %d, %d", base, slots[3], slots[4])
				}
				got = append(got, base)
			})
			if err != nil {
				t.Fatal(err)
			}
			if next <= was {
				t.Fatalf("limit of %d nodes: no progress at block %d", nodes, next)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit of %d nodes: leaves %v, want %v", nodes, got, want)
		}
	}
	if next, err := m.forest.Leaves(Root{Level: 1}, 0, 4, nil); err != nil || next != 512*512 {
		t.Errorf("a tree of holes ends at %d, %v", next, err)
	}
}
