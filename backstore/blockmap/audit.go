package blockmap

import (
	"context"
	"encoding/binary"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/meta"
)

// Audit proves the forest against its roots while nothing changes it and the
// last checkpoint holds all of it: it reaches every node from the roots and the
// dropped nodes, calls leaf once for each leaf, and reports each node whose
// reference count is not the number of references found, and each stored node
// that nothing refers to.
func (f *Forest) Audit(ctx context.Context, kv meta.KV, roots []Root, leaf func(slots []extent.Slot), report func(finding string)) error {
	refs := make(map[uint64]uint32)
	var visit func(id uint64, level uint8) error
	visit = func(id uint64, level uint8) error {
		if refs[id]++; refs[id] > 1 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.node(id, level)
		if err != nil {
			report(err.Error())
			return nil
		}
		return f.auditNode(n, leaf, visit)
	}
	for _, r := range roots {
		if r.Node == 0 {
			continue
		}
		if err := visit(r.Node, r.Level); err != nil {
			return err
		}
	}
	f.droppedMu.Lock()
	dropped := append([]uint64(nil), f.dropped...)
	f.droppedMu.Unlock()
	for _, id := range dropped {
		n, err := f.nodes.Get(id)
		if err != nil {
			return err
		}
		refs[id]++ // a dropped node counts as if its last reference were still there
		if err := f.auditNode(n, leaf, visit); err != nil {
			return err
		}
	}
	return f.auditCounts(kv, refs, report)
}

func (f *Forest) auditNode(n *node, leaf func([]extent.Slot), visit func(uint64, uint8) error) error {
	if n.level == 0 {
		leaf(n.slots[:])
		return nil
	}
	for _, child := range n.slots {
		if child == 0 {
			continue
		}
		if err := visit(uint64(child), n.level-1); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forest) auditCounts(kv meta.KV, refs map[uint64]uint32, report func(string)) error {
	err := kv.Scan([]byte{nodePrefix}, func(key, _ []byte) error {
		if id := binary.BigEndian.Uint64(key[1:]); refs[id] == 0 {
			report(fmt.Sprintf("map node %d is stored, and nothing refers to it", id))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, want := range refs {
		p, err := f.counts.Get(id / Fanout)
		if err != nil {
			return err
		}
		if got := p.extra[id%Fanout] + 1; got != want {
			report(fmt.Sprintf("map node %d has a reference count of %d and %d references", id, got, want))
		}
	}
	return kv.Scan([]byte{countPrefix}, func(key, value []byte) error {
		p, err := decodeCounts(value)
		if err != nil {
			return err
		}
		first := binary.BigEndian.Uint64(key[1:]) * Fanout
		for i, extra := range p.extra {
			if id := first + uint64(i); extra != 0 && refs[id] == 0 {
				report(fmt.Sprintf("map node %d has a reference count of %d and does not exist", id, extra+1))
			}
		}
		return nil
	})
}
