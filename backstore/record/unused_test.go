package record

import (
	"slices"
	"testing"
)

// TestUnused_List: ranges of one kind that touch are one, in whatever order
// they come.
func TestUnused_List(t *testing.T) {
	u := Unused{by: make(map[Change][]UnusedChange)}
	for i, at := range []int64{8192, 12288, 4096, 8192, 20480, 0, 32768, 16384, 32768} {
		u.add(uint64(i+1), Change{Kind: "write", What: "volume v", Offset: at, Length: 4096})
	}
	u.add(10, Change{Kind: "unmap", What: "volume v", Length: 4096})
	u.add(11, Change{Kind: "write", What: "volume w", Length: 4096})
	want := []UnusedChange{
		{1, 8, 7, Change{Kind: "write", What: "volume v", Length: 24576}},
		{7, 9, 2, Change{Kind: "write", What: "volume v", Offset: 32768, Length: 4096}},
		{10, 10, 1, Change{Kind: "unmap", What: "volume v", Length: 4096}},
		{11, 11, 1, Change{Kind: "write", What: "volume w", Length: 4096}},
	}
	if list, _ := u.List(); !slices.Equal(list, want) || u.n != 4 {
		t.Errorf("%d: %v, want %v", u.n, list, want)
	}
}
