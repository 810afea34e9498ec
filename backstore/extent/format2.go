package extent

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/meta"
	"odx/backstore/segment"
)

// UpgradeRow converts a row of a format 2 store, of any package, to the current format:
// it packs pages of the table and returns other rows unchanged. unit is the length of a
// full extent in blocks.
func UpgradeRow(op meta.Op, unit int) (meta.Op, error) {
	if len(op.Key) != 9 || op.Key[0] != pageKey(0)[0] {
		return op, nil
	}
	p, err := decodePage2(unit, op.Value)
	if err != nil {
		return op, fmt.Errorf("%w: row %q: %w", meta.ErrDamaged, op.Key, err)
	}
	op.Value = p.Encode()
	if op.Value == nil {
		op.Value = []byte{}
	}
	return op, nil
}

// decodePage2 reads a page of format 2.
func decodePage2(unit int, b []byte) (*page, error) {
	p := newPage(unit)
	for len(b) > 0 {
		if len(b) < 10 {
			return nil, errShortPage
		}
		i, blocks := int(b[0]), b[1]
		if i >= pageExtents || blocks == 0 || int(blocks) > unit {
			return nil, fmt.Errorf("entry %d of %d blocks", i, blocks)
		}
		e := &p.entries[i]
		e.blocks = blocks
		e.addr = segment.Addr{Segment: segment.ID(binary.BigEndian.Uint32(b[2:])), Block: binary.BigEndian.Uint32(b[6:])}
		b = b[10:]
		if len(b) < len(e.fp)+4*int(blocks) {
			return nil, errShortPage
		}
		b = b[copy(e.fp[:], b):]
		crcs := p.crc(i)
		for k := range int(blocks) {
			crcs[k] = binary.BigEndian.Uint32(b[4*k:])
		}
		b = b[4*int(blocks):]
	}
	return p, nil
}
