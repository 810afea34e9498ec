package blockmap

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/refs"
)

// DescribedRun is a run of slots without holes: consecutive or equal values.
type DescribedRun struct {
	At    int    `json:"at"` // index of the first slot
	Count int    `json:"count"`
	First uint64 `json:"first"`
	Same  bool   `json:"same,omitempty"`
}

// Describe returns the contents of a row of this package in readable form. ok is false
// for rows of other packages.
func Describe(key, value []byte) (described any, ok bool, err error) {
	if len(key) != 9 {
		return nil, false, nil
	}
	switch key[0] {
	case nodePrefix:
		described, err = describeNode(value)
		return described, true, err
	case countPrefix:
		extra, err := refs.Describe(countKind, value)
		return byNumber(binary.BigEndian.Uint64(key[1:]), extra), true, err
	}
	return nil, false, nil
}

func describeNode(value []byte) (any, error) {
	n, err := decodeNode(value)
	if err != nil {
		return nil, err
	}
	runs := []DescribedRun{}
	for i := 0; i < Fanout; {
		count, kind := n.run(i)
		if kind != runHoles {
			runs = append(runs, DescribedRun{At: i, Count: count, First: uint64(n.slots[i]), Same: kind == runConstant && count > 1})
		}
		i += count
	}
	return map[string]any{"level": n.level, "runs": runs}, nil
}

// byNumber keys the counts of a page by node number.
func byNumber(page uint64, extra map[int]int64) map[string]int64 {
	named := make(map[string]int64, len(extra))
	for i, n := range extra {
		named[fmt.Sprint(page*refs.PerPage+uint64(i))] = n
	}
	return named
}
