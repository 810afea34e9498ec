package extent

import (
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// pageExtents is the number of consecutive extents on a page. Extents written together
// have consecutive IDs, so a sequential stream changes one page.
const pageExtents = 128

// PageExtents is the number of extents per row.
const PageExtents = pageExtents

type page struct {
	pages.Header
	unit    int
	entries [pageExtents]entry
	crcs    []uint32 // unit CRCs per entry
}

type entry struct {
	addr   segment.Addr
	blocks uint8 // 0: the extent does not exist
	fp     Fingerprint
}

// pageBytes is the approximate memory of one cached page.
func pageBytes(unit int) int64 { return int64(pageExtents*(44+4*unit) + 128) }

func newPage(unit int) *page {
	return &page{unit: unit, crcs: make([]uint32, pageExtents*unit)}
}

func (p *page) entry(id ID) *entry { return &p.entries[id%pageExtents] }

func (p *page) crc(i int) []uint32 { return p.crcs[i*p.unit : (i+1)*p.unit] }
