package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashClone returns a new Mem with a state that a power failure at this instant may
// leave. It has all durable data and names. Each sector of 512 bytes has its content after
// any number of the non-durable writes to it, independently of other sectors. A file has
// any of its sizes since its last Sync. Any of the non-durable name changes are kept, with
// changes of the same name in order. m is not modified, and the clone has no hook and no
// owners, whose epochs it has.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.world.Lock()
	defer m.world.Unlock()
	m.names.Lock()
	defer m.names.Unlock()

	// keep varies between clones: a constant 0.5 per sector would never keep a large write
	// completely.
	keep := [...]float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	names := maps.Clone(m.durable)
	stuck := map[string]bool{}
	for _, op := range m.pending {
		lost := rng.Float64() >= keep
		for _, set := range op {
			lost = lost || stuck[set.name]
		}
		if !lost {
			op.applyTo(names)
			continue
		}
		for _, set := range op {
			stuck[set.name] = true
		}
	}

	clone := NewMem()
	m.copyOwners(clone)
	clone.space.capacity.Store(m.space.capacity.Load())
	for _, name := range slices.Sorted(maps.Keys(names)) { // deterministic for a seed
		node := names[name]
		if !node.dir {
			node = node.crashClone(rng, keep)
			node.blocks.count(&clone.space)
		}
		clone.current[name], clone.durable[name] = node, node
	}
	return clone
}

func (n *inode) crashClone(rng *rand.Rand, keep float64) *inode {
	n.mu.Lock()
	defer n.mu.Unlock()
	im := n.durable.clone()
	updates := append(append([]update{}, n.inDoubt...), n.pending...)
	if len(n.sizes) > 0 && rng.Float64() < keep {
		im.resize(n.sizes[rng.IntN(len(n.sizes))])
	}

	writes := map[int64]int{} // number of the writes to a sector
	for _, u := range updates {
		first, end := sectors(u.off, u.length)
		for s := first; s < end; s++ {
			writes[s]++
		}
	}
	chosen := make(map[int64]int, len(writes))
	for _, u := range updates {
		first, end := sectors(u.off, u.length)
		for s := first; s < end; s++ {
			left, seen := chosen[s]
			if !seen && rng.Float64() < keep {
				// Mostly the last content, sometimes an earlier one.
				left = writes[s]
				if rng.IntN(4) == 0 {
					left = 1 + rng.IntN(writes[s])
				}
			}
			if left > 0 {
				from := max(u.off, s*sectorLength)
				to := min(u.off+u.length, (s+1)*sectorLength)
				im.apply(u.part(from, to-from))
			}
			chosen[s] = max(left-1, 0)
		}
	}
	return &inode{current: im.clone(), durable: im.clone(), blocks: n.blocks.clone()}
}

// ProcessClone returns a new Mem with the state after the process ends at this instant
// and the kernel continues: all written data and names, durable or not. As in m, a
// power failure loses what is not durable. m is not modified, and the clone has no hook
// and no owners, whose epochs it has.
func (m *Mem) ProcessClone() *Mem {
	m.world.Lock()
	defer m.world.Unlock()
	m.names.Lock()
	defer m.names.Unlock()

	clone := NewMem()
	m.copyOwners(clone)
	clone.space.capacity.Store(m.space.capacity.Load())
	clone.space.used.Store(m.space.used.Load())
	clone.space.taken.Store(m.space.taken.Load())
	nodes := map[*inode]*inode{}
	same := func(n *inode) *inode {
		if n == nil || n.dir {
			return n
		}
		if nodes[n] == nil {
			nodes[n] = n.processClone()
		}
		return nodes[n]
	}
	for name, node := range m.current {
		clone.current[name] = same(node)
	}
	for name, node := range m.durable {
		clone.durable[name] = same(node)
	}
	for _, op := range m.pending {
		var copied nameOp
		for _, set := range op {
			copied = append(copied, nameSet{set.name, same(set.node)})
		}
		clone.pending = append(clone.pending, copied)
	}
	return clone
}

func (n *inode) processClone() *inode {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &inode{
		blocks: n.blocks.clone(), current: n.current.clone(), durable: n.durable.clone(),
		pending: slices.Clone(n.pending), inDoubt: slices.Clone(n.inDoubt), sizes: slices.Clone(n.sizes),
	}
}
