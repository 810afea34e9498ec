package blockmap

import (
	"odx/backstore/extent"
)

// Import copies the readable parts of trees of another forest into this one. Nodes
// shared in the other forest are shared in this one.
type Import struct {
	To, From *Forest
	// Leaf receives the slots of a leaf whose first block is base. It replaces slots of
	// lost extents by those of Lost, adds a reference for each other slot, and reports
	// whether it replaced any.
	Leaf func(base uint64, slots *[Fanout]extent.Slot) (lost bool, err error)
	// Lost returns the slot for a lost block.
	Lost func() (extent.Slot, error)
	// Report is called for blocks lost with a map node.
	Report func(first, count uint64, err error)
	// Pause is called between nodes. It may store the nodes created so far.
	Pause func() error

	made    map[uint64]uint64    // node of From → its copy
	damaged map[uint64]bool      // copies that contain lost blocks
	lost    [MaxLevel + 1]uint64 // each with a reference that End releases
}

// Tree copies a tree.
func (m *Import) Tree(r Root) (Root, error) {
	if m.made == nil {
		m.made, m.damaged = make(map[uint64]uint64), make(map[uint64]bool)
	}
	id, _, err := m.node(r.Node, r.Level, 0)
	return Root{Node: id, Level: r.Level}, err
}

// End ends the import. No tree is made after it.
func (m *Import) End() error {
	for _, id := range m.lost {
		if err := m.To.release(id); err != nil {
			return err
		}
	}
	return nil
}

// LostTree returns a tree of a level all of whose blocks are lost, with one reference for
// the caller.
func (m *Import) LostTree(level uint8) (Root, error) {
	id, err := m.lostNode(level)
	return Root{Node: id, Level: level}, err
}

// node returns the copy of a node, with one reference for the caller.
func (m *Import) node(id uint64, level uint8, base uint64) (made uint64, damaged bool, err error) {
	if id == 0 {
		return 0, false, nil
	}
	if made, ok := m.made[id]; ok {
		if m.damaged[id] {
			err = m.reportAgain(id, level, base)
		}
		if err != nil {
			return 0, false, err
		}
		return made, m.damaged[id], m.To.addRef(made)
	}
	if err := m.Pause(); err != nil {
		return 0, false, err
	}
	n, err := m.From.node(id, level)
	if err != nil {
		m.Report(base, span(level), err)
		made, err = m.lostNode(level)
		return made, true, err
	}
	c := &node{level: level, slots: n.slots}
	if level == 0 {
		damaged, err = m.Leaf(base, &c.slots)
	} else {
		damaged, err = m.children(c, base)
	}
	if err != nil {
		return 0, false, err
	}
	m.To.insert(c)
	m.made[id] = c.ID()
	if damaged {
		m.damaged[id] = true
	}
	return c.ID(), damaged, nil
}

// children replaces the slots of a node by those of its children's copies.
func (m *Import) children(c *node, base uint64) (damaged bool, err error) {
	for i, child := range c.slots {
		made, bad, err := m.node(uint64(child), c.level-1, base+uint64(i)*span(c.level-1))
		if err != nil {
			return false, err
		}
		c.slots[i] = extent.Slot(made)
		damaged = damaged || bad
	}
	return damaged, nil
}

// reportAgain reports the lost blocks of a node that was copied for another tree.
func (m *Import) reportAgain(id uint64, level uint8, base uint64) error {
	if id == 0 || m.made[id] != 0 && !m.damaged[id] {
		return nil
	}
	n, err := m.From.node(id, level)
	if err != nil {
		m.Report(base, span(level), err)
		return nil
	}
	if level == 0 {
		slots := n.slots
		_, err := m.Leaf(base, &slots)
		if err == nil {
			err = m.To.extents.Unref(slots[:])
		}
		return err
	}
	for i, child := range n.slots {
		if err := m.reportAgain(uint64(child), level-1, base+uint64(i)*span(level-1)); err != nil {
			return err
		}
	}
	return nil
}

// lostNode returns a node that maps only lost blocks, with a reference for the caller.
func (m *Import) lostNode(level uint8) (uint64, error) {
	if id := m.lost[level]; id != 0 {
		return id, m.To.addRef(id)
	}
	slot, err := m.Lost()
	if err != nil {
		return 0, err
	}
	if level > 0 {
		child, err := m.lostNode(level - 1)
		if err != nil {
			return 0, err
		}
		slot = extent.Slot(child)
	}
	c := &node{level: level}
	for i := range c.slots {
		c.slots[i] = slot
	}
	if level == 0 {
		err = m.To.extents.Ref(c.slots[:])
	}
	for i := 1; level > 0 && i < Fanout && err == nil; i++ {
		err = m.To.addRef(uint64(slot))
	}
	if err != nil {
		return 0, err
	}
	// Without a reference of its own, the first tree that is changed would change it.
	m.lost[level] = m.To.insert(c).ID()
	return m.lost[level], m.To.addRef(m.lost[level])
}
