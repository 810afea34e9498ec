package extent

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/refs"
)

// Describe returns the contents of a row of this package in readable form. ok is false
// for rows of other packages. unit is the length of a full extent in blocks.
func Describe(key, value []byte, unit int) (described any, ok bool, err error) {
	switch {
	case len(key) == 5 && key[0] == UsagePrefix:
		u, err := decodeUsage(value)
		if err != nil {
			return nil, true, err
		}
		return map[string]any{"live_blocks": u.live, "pages": u.pages}, true, nil
	case len(key) != 9:
		return nil, false, nil
	case key[0] == CountPrefix:
		extra, err := refs.Describe(countKind, value)
		named := make(map[string]int64, len(extra))
		for i, n := range extra {
			named[fmt.Sprint(binary.BigEndian.Uint64(key[1:])*refs.PerPage+uint64(i))] = n
		}
		return named, true, err
	case key[0] == pageKey(0)[0]:
		p, err := decodePage(unit, value)
		if err != nil {
			return nil, true, err
		}
		first := binary.BigEndian.Uint64(key[1:]) * pageExtents
		entries := []any{}
		for _, i := range p.existing() {
			e := &p.entries[i]
			crcs := make([]string, e.blocks)
			for k, crc := range p.crc(i)[:e.blocks] {
				crcs[k] = fmt.Sprintf("%08x", crc)
			}
			entries = append(entries, map[string]any{
				"extent": first + uint64(i), "segment": fmt.Sprintf("%08x", uint32(e.addr.Segment)), "block": e.addr.Block, "blocks": e.blocks,
				"fingerprint": fmt.Sprintf("%x", e.fp), "crc": crcs,
			})
		}
		return entries, true, nil
	}
	return nil, false, nil
}
