package extent

import (
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/pages"
	"odx/backstore/segment"
)

// pageExtents is how many consecutive extents share a page. Extents written
// together have consecutive IDs, so a sequential stream works on one page.
const pageExtents = 128

type page struct {
	pages.Header
	unit    int
	entries [pageExtents]entry
	crcs    []uint32 // unit per entry
}

type entry struct {
	addr   segment.Addr
	blocks uint8 // 0: no such extent
	fp     Fingerprint
}

// pageBytes is about the memory of one cached page.
func pageBytes(unit int) int64 { return int64(pageExtents*(44+4*unit) + 128) }

func newPage(unit int) *page {
	return &page{unit: unit, crcs: make([]uint32, pageExtents*unit)}
}

func (p *page) entry(id ID) *entry { return &p.entries[id%pageExtents] }

func (p *page) crc(i int) []uint32 { return p.crcs[i*p.unit : (i+1)*p.unit] }

// Encode returns, for each extent of the page: index and blocks (a byte each),
// segment and block (4 bytes each), fingerprint, CRCs.
func (p *page) Encode() []byte {
	n := p.encodedLength()
	if n == 0 {
		return nil // as the cache wants it
	}
	b := make([]byte, 0, n)
	for i := range p.entries {
		e := &p.entries[i]
		if e.blocks == 0 {
			continue
		}
		b = append(b, byte(i), e.blocks)
		b = binary.BigEndian.AppendUint32(b, uint32(e.addr.Segment))
		b = binary.BigEndian.AppendUint32(b, e.addr.Block)
		b = append(b, e.fp[:]...)
		for _, crc := range p.crc(i)[:e.blocks] {
			b = binary.BigEndian.AppendUint32(b, crc)
		}
	}
	return b
}

// encodedLength returns the length of what Encode returns.
func (p *page) encodedLength() (n int) {
	for i := range p.entries {
		if e := &p.entries[i]; e.blocks != 0 {
			n += 10 + len(e.fp) + 4*int(e.blocks)
		}
	}
	return n
}

var errShortPage = errors.New("extent page ends early")

func decodePage(unit int, b []byte) (*page, error) {
	p := newPage(unit)
	for len(b) > 0 {
		if len(b) < 10 {
			return nil, errShortPage
		}
		i, blocks := int(b[0]), b[1]
		if i >= pageExtents || blocks == 0 || int(blocks) > unit {
			return nil, fmt.Errorf("extent page: entry %d of %d blocks", i, blocks)
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
