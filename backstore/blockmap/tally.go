package blockmap

import "odx/backstore/extent"

// Tally counts the blocks that several trees map. The zero value is ready.
type Tally struct {
	counted map[uint64]uint64 // blocks below each node that was counted
	// Distinct is the number of mapped slots in all counted nodes. A node in several
	// trees counts once.
	Distinct uint64
}

// Count returns the number of mapped blocks of the tree, which is held or locked. Nodes
// that t has counted are not read again.
func (f *Forest) Count(r Root, t *Tally) (uint64, error) {
	if t.counted == nil {
		t.counted = make(map[uint64]uint64)
	}
	return f.count(r.Node, r.Level, t)
}

func (f *Forest) count(id uint64, level uint8, t *Tally) (uint64, error) {
	if id == 0 {
		return 0, nil
	}
	if blocks, ok := t.counted[id]; ok {
		return blocks, nil
	}
	n, err := f.node(id, level)
	if err != nil {
		return 0, err
	}
	blocks := uint64(0)
	if level == 0 {
		blocks = mapped(n.slots[:])
		t.Distinct += blocks
	} else {
		for _, child := range n.slots {
			below, err := f.count(uint64(child), level-1, t)
			if err != nil {
				return 0, err
			}
			blocks += below
		}
	}
	t.counted[id] = blocks
	return blocks, nil
}

func mapped(slots []extent.Slot) (n uint64) {
	for _, slot := range slots {
		if slot != 0 {
			n++
		}
	}
	return n
}
