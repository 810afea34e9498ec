package backstore

import (
	"fmt"
	"hash/crc32"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/segment"
	"odx/backstore/stale"
)

// leaf is blockmap.Import.Leaf.
func (m *repair) leaf(base uint64, slots *[blockmap.Fanout]extent.Slot) (lost bool, err error) {
	from, why := 0, ""
	for i, slot := range slots {
		reason, made := "", true
		if slot != 0 {
			if reason, made, err = m.makeExtent(slot); err != nil {
				return false, err
			}
		}
		if !made {
			if slots[i], err = m.lostSlot(); err != nil {
				return false, err
			}
		}
		lost = lost || reason != ""
		if reason != why {
			if why != "" {
				m.lose(base+uint64(from), uint64(i-from), why)
			}
			from, why = i, reason
		}
	}
	if why != "" {
		m.lose(base+uint64(from), uint64(len(slots)-from), why)
	}
	return lost, m.to.parts.extents.Ref(slots[:])
}

// makeStale makes blocks of a tree that are stale in the damaged store lost ones.
func (m *repair) makeStale(root *blockmap.Root, blocks *stale.Blocks) error {
	for at, end := range blocks.Spans() {
		end = min(end, root.Blocks())
		if at >= end {
			continue
		}
		m.lose(at, end-at, stale.Err.Error())
		lost, err := m.trees.LostTree(root.Level)
		if err != nil {
			return err
		}
		for at < end {
			n, err := m.to.parts.forest.Copy(root, at, lost, at, end-at, mapStep)
			if err != nil {
				return err
			}
			at += n
		}
		if err := m.to.parts.forest.Drop(lost); err != nil {
			return err
		}
	}
	return nil
}

// makeExtent makes the extent of a slot, if it is not there yet. reason says why
// its block is lost, if it is.
func (m *repair) makeExtent(slot extent.Slot) (reason string, made bool, err error) {
	id, block := m.from.parts.extents.Split(slot)
	x, ok, err := m.from.parts.extents.Entry(id)
	switch {
	case err != nil:
		return err.Error(), false, nil
	case !ok, block >= int(x.Blocks):
		return fmt.Sprintf("extent %d is missing from the table", id), false, nil
	}
	if end := int64(x.Addr.Block) + int64(x.Blocks); x.Addr.Block == 0 || end > m.segmentBlocks(x.Addr.Segment) {
		return fmt.Sprintf("segment %08x is missing or cut short", uint32(x.Addr.Segment)), false, nil
	}
	if m.isMade(id) {
		return m.badBlock(id, block), true, nil
	}
	m.verifyExtent(id, &x)
	m.setMade(id)
	return m.badBlock(id, block), true, m.to.parts.extents.Create(id, &x)
}

// segmentBlocks returns the length of a segment in blocks, 0 when it is missing.
func (m *repair) segmentBlocks(id segment.ID) int64 {
	n, ok := m.whole[id]
	if !ok {
		n = m.from.parts.segments.Bytes(id) / BlockLength
		m.whole[id] = n
	}
	return n
}

func (m *repair) isMade(id extent.ID) bool {
	at := int(id / 64)
	return at < len(m.made) && m.made[at]&(1<<(id%64)) != 0
}

func (m *repair) setMade(id extent.ID) {
	at := int(id / 64)
	if at >= len(m.made) {
		m.made = append(m.made, make([]uint64, at+1-len(m.made)+len(m.made)/4)...)
	}
	m.made[at] |= 1 << (id % 64)
}

// lostSlot returns the slot of the block that fails its checksum.
func (m *repair) lostSlot() (extent.Slot, error) {
	if m.lost != 0 {
		return m.lost, nil
	}
	data := make([]byte, BlockLength)
	for i := range data {
		data[i] = lostText[i%len(lostText)]
	}
	addr, err := m.to.parts.segments.Append(data)
	if err != nil {
		return 0, err
	}
	x := extent.Extent{Addr: addr, Blocks: 1}
	x.CRC[0] = ^crc32.Checksum(data, castagnoli)
	id := m.to.parts.extents.Allocate(1)
	if err := m.to.parts.extents.Create(id, &x); err != nil {
		return 0, err
	}
	m.setMade(id)
	m.lost = m.to.parts.extents.Slot(id, 0)
	return m.lost, nil
}

// dropMade takes back the references that extents were made with: those of the
// maps were added to them.
func (m *repair) dropMade() error {
	for at, bits := range m.made {
		for k := range 64 {
			if bits&(1<<k) == 0 {
				continue
			}
			id := extent.ID(at*64 + k)
			x, ok, err := m.to.parts.extents.Entry(id)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("%w: extent %d was made and is missing", ErrCorrupt, id)
			}
			slots := make([]extent.Slot, x.Blocks)
			for i := range slots {
				slots[i] = m.to.parts.extents.Slot(id, i)
			}
			if err := m.to.parts.extents.Unref(slots); err != nil {
				return err
			}
		}
	}
	return nil
}
