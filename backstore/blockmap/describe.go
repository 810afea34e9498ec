package blockmap

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/refs"
)

// Describe returns the contents of a row of this package in readable form. ok is false
// for rows of other packages.
func Describe(key, value []byte) (described any, ok bool, err error) {
	if len(key) != 9 {
		return nil, false, nil
	}
	switch key[0] {
	case NodePrefix:
		described, err = describeNode(value)
		return described, true, err
	case CountPrefix:
		extra, err := refs.Describe(countKind, value)
		return byNumber(binary.BigEndian.Uint64(key[1:]), extra), true, err
	}
	return nil, false, nil
}

// describeNode returns the level of a node and the runs of its slots without holes: the
// index of the first slot, how many there are, the value of the first one, and whether
// all are equal; otherwise they are consecutive.
func describeNode(value []byte) (any, error) {
	n, err := decodeNode(value)
	if err != nil {
		return nil, err
	}
	runs := []map[string]any{}
	for i := 0; i < Fanout; {
		count, kind := n.run(i)
		if kind != runHoles {
			run := map[string]any{"at": i, "count": count, "first": uint64(n.slots[i])}
			if kind == runConstant && count > 1 {
				run["same"] = true
			}
			runs = append(runs, run)
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
