package blockmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/refs"
)

// Audit verifies a stored forest against its roots and the dropped nodes not yet
// reaped. It reports each node that is missing, has the wrong level, has a count other
// than the references found, or is stored without a reference. It uses some tens of
// bytes per node.
func Audit(ctx context.Context, kv meta.Reader, roots []Root, dropped []uint64, report func(finding string)) error {
	a := &audit{nodes: make(map[uint64]nodeAudit), report: report}
	for _, r := range roots {
		a.refer(r.Node, r.Level)
	}
	for _, id := range dropped {
		// A dropped node holds its references until it is reaped.
		n := a.nodes[id]
		n.refs++
		a.nodes[id] = n
	}
	err := eachNode(ctx, kv, func(id uint64, n *node, err error) {
		if err != nil {
			report(fmt.Sprintf("map node %d cannot be read: %v", id, err))
			return
		}
		a.found(id, n)
	})
	if err != nil {
		return err
	}
	if err := a.counts(kv); err != nil {
		return err
	}
	a.compare()
	return nil
}

// EachLeaf calls fn with the slots of every stored leaf. fn must neither retain nor
// modify them.
func EachLeaf(ctx context.Context, kv meta.Reader, fn func(slots []extent.Slot)) error {
	return eachNode(ctx, kv, func(_ uint64, n *node, err error) {
		if err == nil && n.level == 0 {
			fn(n.slots[:])
		}
	})
}

// eachNode calls fn with every stored node, or with the decoding error.
func eachNode(ctx context.Context, kv meta.Reader, fn func(id uint64, n *node, err error)) error {
	return kv.Scan([]byte{NodePrefix}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := decodeNode(value)
		fn(binary.BigEndian.Uint64(key[1:]), n, err)
		return nil
	})
}

// audit is the state of one Audit.
type audit struct {
	nodes  map[uint64]nodeAudit
	report func(finding string)
}

// nodeAudit is the state of one node in an audit.
type nodeAudit struct {
	refs  int64 // references found
	extra int64 // references beyond the first, as counted
	// Levels are stored plus one; 0 means unknown.
	level    uint8 // level of the stored node
	referred uint8 // level that parents and roots expect
	confused bool  // referrers expect different levels
}

// refer records a reference to a node of the level.
func (a *audit) refer(id uint64, level uint8) {
	if id == 0 {
		return
	}
	n := a.nodes[id]
	n.refs++
	n.confused = n.confused || n.referred != 0 && n.referred != level+1
	n.referred = level + 1
	a.nodes[id] = n
}

// found records a stored node and its references.
func (a *audit) found(id uint64, n *node) {
	known := a.nodes[id]
	known.level = n.level + 1
	a.nodes[id] = known
	if n.level == 0 {
		return
	}
	for _, child := range n.slots {
		a.refer(uint64(child), n.level-1)
	}
}

func (a *audit) counts(kv meta.Reader) error {
	return refs.Scan(kv, countKind, func(first uint64, extra []int64, err error) error {
		if err != nil {
			a.report(fmt.Sprintf("reference counts of map nodes %d to %d cannot be read: %v", first, first+refs.PerPage-1, err))
			return nil
		}
		for i, extra := range extra {
			if extra != 0 {
				id := first + uint64(i)
				n := a.nodes[id]
				n.extra = extra
				a.nodes[id] = n
			}
		}
		return nil
	})
}

// compare reports inconsistencies in the order of node numbers.
func (a *audit) compare() {
	for _, id := range slices.Sorted(maps.Keys(a.nodes)) {
		n := a.nodes[id]
		switch {
		case n.level == 0 && n.refs > 0:
			a.report(fmt.Sprintf("map node %d does not exist and has %d references", id, n.refs))
		case n.level == 0:
			a.report(fmt.Sprintf("map node %d has a reference count of %d and does not exist", id, n.extra+1))
		case n.refs == 0:
			a.report(fmt.Sprintf("map node %d is stored and has no references", id))
		case n.confused || n.referred != 0 && n.referred != n.level:
			a.report(fmt.Sprintf("map node %d has level %d where another level is expected", id, n.level-1))
		case n.extra+1 != n.refs:
			a.report(fmt.Sprintf("map node %d has a reference count of %d and %d references", id, n.extra+1, n.refs))
		}
	}
}
