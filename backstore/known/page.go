package known

import (
	"encoding/binary"
	"errors"

	"odx/backstore/extent"
	"odx/backstore/pages"
)

const (
	// pageSlots is how many consecutive slots of another store a page has.
	pageSlots  = 512
	pageShift  = 9
	numberBits = 16
	// slotBits: slots beyond are not remembered. With 1,000,000 new extents a second a
	// store gets there in 2000 years.
	slotBits = 64 - numberBits + pageShift
	// maxSeries is how many series a page has names of. A series begins where the other
	// store is opened, so more than two are rare: with one more the page begins empty.
	maxSeries = 8
	pageBytes = pageSlots*9 + 192
	rowFormat = 1
)

// page has, for consecutive slots of another store, the slots of this one that had the
// same data when they were added. Its lock guards it.
type page struct {
	pages.Header
	local  [pageSlots]extent.Slot // 0: not known
	index  [pageSlots]uint8       // of series
	series []uint64
	count  int // slots that are known
}

// seriesIndex returns the index of a series, -1 if the page has none of its names.
func (p *page) seriesIndex(series uint64) int {
	for i, s := range p.series {
		if s == series {
			return i
		}
	}
	return -1
}

// put adds a name.
func (p *page) put(at int, series int, local extent.Slot) {
	if p.local[at] == 0 {
		p.count++
	}
	p.local[at], p.index[at] = local, uint8(series)
}

func (p *page) drop(at int) {
	if p.local[at] != 0 {
		p.count--
	}
	p.local[at], p.index[at] = 0, 0
}

func (p *page) clear() {
	p.local, p.index, p.series, p.count = [pageSlots]extent.Slot{}, [pageSlots]uint8{}, nil, 0
}

// forgetSeries removes the series without names.
func (p *page) forgetSeries() {
	var used [maxSeries]bool
	for at, local := range p.local {
		if local != 0 {
			used[p.index[at]] = true
		}
	}
	var to [maxSeries]uint8
	kept := p.series[:0]
	for i, s := range p.series {
		if to[i] = uint8(len(kept)); used[i] {
			kept = append(kept, s)
		}
	}
	p.series = kept
	for at := range p.index {
		p.index[at] = to[p.index[at]]
		if p.local[at] == 0 {
			p.index[at] = 0
		}
	}
}

// Encode returns the row, nil for a page without names: format (a byte, 1), number of
// series (a byte), these (8 bytes each), then runs of slots: uvarint count × 2, plus 1 if
// they are known; for those the series' index (a byte) and the zigzag difference of the
// first local slot to the last one of the run before. The local slots of a run are
// consecutive.
func (p *page) Encode() []byte {
	if p.count == 0 {
		return nil
	}
	b := make([]byte, 2, 128)
	b[0], b[1] = rowFormat, byte(len(p.series))
	for _, s := range p.series {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	last := uint64(0)
	for at := 0; at < pageSlots; {
		n := 1
		if p.local[at] == 0 {
			for at+n < pageSlots && p.local[at+n] == 0 {
				n++
			}
			b = binary.AppendUvarint(b, uint64(n)<<1)
			at += n
			continue
		}
		for at+n < pageSlots && p.local[at+n] == p.local[at]+extent.Slot(n) && p.index[at+n] == p.index[at] {
			n++
		}
		b = append(binary.AppendUvarint(b, uint64(n)<<1|1), p.index[at])
		b = binary.AppendVarint(b, int64(uint64(p.local[at])-last))
		last = uint64(p.local[at+n-1])
		at += n
	}
	return b
}

var errRow = errors.New("page of known names: truncated, trailing bytes, or invalid run")

// decodePage returns the page of a row, one without names if there is none.
func decodePage(b []byte) (*page, error) {
	p := &page{}
	if len(b) == 0 {
		return p, nil
	}
	if len(b) < 2 || b[0] != rowFormat || b[1] > maxSeries || len(b) < 2+8*int(b[1]) {
		return nil, errRow
	}
	series := int(b[1])
	b = b[2:]
	for range series {
		p.series = append(p.series, binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	last := uint64(0)
	for at := 0; at < pageSlots; {
		head, w := binary.Uvarint(b)
		n := head >> 1
		if w <= 0 || n == 0 || n > uint64(pageSlots-at) {
			return nil, errRow
		}
		b = b[w:]
		if head&1 == 0 {
			at += int(n)
			continue
		}
		if len(b) == 0 || int(b[0]) >= series {
			return nil, errRow
		}
		index := b[0]
		diff, w := binary.Varint(b[1:])
		if w <= 0 {
			return nil, errRow
		}
		b = b[1+w:]
		first := last + uint64(diff)
		for i := range n {
			if first+i == 0 {
				return nil, errRow
			}
			p.put(at, int(index), extent.Slot(first+i))
			at++
		}
		last = first + n - 1
	}
	if len(b) != 0 {
		return nil, errRow
	}
	return p, nil
}
