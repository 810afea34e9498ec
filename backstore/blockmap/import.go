package blockmap

import (
	"odx/backstore/extent"
)

// Import makes trees of another forest again in this one, as far as they can be
// read. What trees share they share again.
type Import struct {
	To, From *Forest
	// Leaf gets the slots of a leaf whose first block is base. It replaces those
	// of extents that are lost by Lost's, adds a reference for each that it leaves,
	// and reports whether there were some.
	Leaf func(base uint64, slots *[Fanout]extent.Slot) (lost bool, err error)
	// Lost returns the slot that stands for a block that is lost.
	Lost func() (extent.Slot, error)
	// Report is called for blocks that are lost with a node of the map.
	Report func(first, count uint64, err error)
	// Pause is called between nodes: a time to store what was made.
	Pause func() error

	made    map[uint64]uint64 // nodes of From: what was made of them
	damaged map[uint64]bool   // of made: something in them is lost
	lost    [MaxLevel + 1]uint64
}

// Tree makes a tree again.
func (m *Import) Tree(r Root) (Root, error) {
	if m.made == nil {
		m.made, m.damaged = make(map[uint64]uint64), make(map[uint64]bool)
	}
	id, _, err := m.node(r.Node, r.Level, 0)
	return Root{Node: id, Level: r.Level}, err
}

// node returns what was made of a node, with one reference for the caller.
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

// children replaces the slots of a node by what was made of them.
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

// reportAgain reports what is lost in a node that was made for another tree.
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

// lostNode returns a node whose blocks all are lost, with a reference for the
// caller.
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
	m.lost[level] = m.To.insert(c).ID()
	return m.lost[level], nil
}
