package extent

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"odx/backstore/segment"
)

// The row of a page stores its extents by column, in the order of IDs, since adjacent
// extents have similar values:
//
//	0x81, a bit for each extent that exists (16 bytes, the first in
//	the lowest bit of the first byte);
//	runs of extents of equal length: uvarint extents, blocks (a byte);
//	runs of contiguous extents: uvarint extents, segment and
//	block of the first (4 bytes each);
//	runs of extents with or without a fingerprint: uvarint extents times 2, plus
//	1 for with, the fingerprints (32 bytes each);
//	CRC-32C of each block (4 bytes each).
//
// A row of format 2 stores, per extent, index and blocks (a byte each), segment and
// block (4 bytes each), fingerprint and CRCs. The index is below 128, so packedRow
// distinguishes the formats.
const packedRow = 0x81

// Encode returns the row, nil for a page without extents.
func (p *page) Encode() []byte {
	all := p.existing()
	if len(all) == 0 {
		return nil // see pages.Object
	}
	existing := all
	b := make([]byte, 1+pageExtents/8, 64+len(existing)*(len(Fingerprint{})+4*p.unit))
	b[0] = packedRow
	for _, i := range existing {
		b[1+i/8] |= 1 << (i % 8)
	}
	for n := 0; len(existing) > 0; existing = existing[n:] {
		first := &p.entries[existing[0]]
		n = runLength(existing, func(_, i int) bool { return p.entries[i].blocks == first.blocks })
		b = append(binary.AppendUvarint(b, uint64(n)), first.blocks)
	}
	existing = all
	for n := 0; len(existing) > 0; existing = existing[n:] {
		first := &p.entries[existing[0]]
		n = runLength(existing, func(last, i int) bool {
			end := p.entries[last].addr
			end.Block += uint32(p.entries[last].blocks)
			return p.entries[i].addr == end
		})
		b = binary.AppendUvarint(b, uint64(n))
		b = binary.BigEndian.AppendUint32(b, uint32(first.addr.Segment))
		b = binary.BigEndian.AppendUint32(b, first.addr.Block)
	}
	return p.appendSums(b, all)
}

// appendSums appends fingerprints and CRCs.
func (p *page) appendSums(b []byte, all []int) []byte {
	existing := all
	for n := 0; len(existing) > 0; existing = existing[n:] {
		known := p.entries[existing[0]].fp != Fingerprint{}
		n = runLength(existing, func(_, i int) bool { return p.entries[i].fp != Fingerprint{} == known })
		if !known {
			b = binary.AppendUvarint(b, uint64(n)<<1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(n)<<1|1)
		for _, i := range existing[:n] {
			b = append(b, p.entries[i].fp[:]...)
		}
	}
	for _, i := range all {
		for _, crc := range p.crc(i)[:p.entries[i].blocks] {
			b = binary.BigEndian.AppendUint32(b, crc)
		}
	}
	return b
}

// existing returns the indexes of the extents that exist.
func (p *page) existing() []int {
	existing := make([]int, 0, pageExtents)
	for i := range p.entries {
		if p.entries[i].blocks != 0 {
			existing = append(existing, i)
		}
	}
	return existing
}

// runLength returns the number of leading extents in which each continues the run of
// the one before it.
func runLength(existing []int, like func(last, i int) bool) int {
	n := 1
	for n < len(existing) && like(existing[n-1], existing[n]) {
		n++
	}
	return n
}

var errShortPage = errors.New("extent page: truncated, trailing bytes, or invalid run")

func decodePage(unit int, b []byte) (*page, error) {
	if len(b) == 0 {
		return newPage(unit), nil // no extent of the page exists
	}
	if b[0] != packedRow {
		return nil, errors.New("extent page: unknown format")
	}
	d := pageReader{p: newPage(unit), b: b[1:]}
	d.bitmap()
	d.eachRun(func(n uint64) {
		blocks := d.take(1)
		for _, i := range d.extents(n) {
			d.p.entries[i].blocks = blocks[0]
			d.bad = d.bad || blocks[0] == 0 || int(blocks[0]) > unit
		}
	})
	d.eachRun(func(n uint64) {
		at := d.take(8)
		addr := segment.Addr{Segment: segment.ID(binary.BigEndian.Uint32(at)), Block: binary.BigEndian.Uint32(at[4:])}
		for _, i := range d.extents(n) {
			d.p.entries[i].addr = addr
			addr.Block += uint32(d.p.entries[i].blocks)
		}
	})
	d.eachRun(func(n uint64) {
		for _, i := range d.extents(n >> 1) {
			if n&1 != 0 {
				copy(d.p.entries[i].fp[:], d.take(len(Fingerprint{})))
			}
		}
	})
	for _, i := range d.all {
		if d.bad {
			break
		}
		crcs := d.p.crc(i)
		for k := range int(d.p.entries[i].blocks) {
			crcs[k] = binary.BigEndian.Uint32(d.take(4))
		}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errShortPage
	}
	return d.p, nil
}

// pageReader decodes a row. bad is sticky.
type pageReader struct {
	p    *page
	b    []byte
	all  []int // extents that exist
	left []int // the part of all without a run in this column
	bad  bool
}

// take returns the next n bytes, or zeros and sets bad if fewer are left.
func (d *pageReader) take(n int) []byte {
	if len(d.b) < n {
		d.bad, d.b = true, nil
		return make([]byte, n)
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *pageReader) bitmap() {
	for at, set := range d.take(pageExtents / 8) {
		for ; set != 0; set &= set - 1 {
			d.all = append(d.all, at*8+bits.TrailingZeros8(set))
		}
	}
}

// eachRun calls fn with the leading number of each run, until each extent is in a run.
func (d *pageReader) eachRun(fn func(n uint64)) {
	d.left = d.all
	for len(d.left) > 0 && !d.bad {
		n, size := binary.Uvarint(d.b)
		if size <= 0 {
			d.bad = true
			return
		}
		d.b = d.b[size:]
		fn(n)
	}
}

// extents returns the next n extents.
func (d *pageReader) extents(n uint64) []int {
	if n == 0 || n > uint64(len(d.left)) {
		d.bad = true
		return nil
	}
	run := d.left[:n]
	d.left = d.left[n:]
	return run
}
