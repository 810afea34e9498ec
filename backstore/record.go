package backstore

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/segment"
)

// Kinds of journal records; the first byte of each. A record holds what is
// needed to do the operation once more on the state that the records before it
// produced; it is written in the order in which the operations took effect.
const (
	recWrite          = 1
	recClear          = 2
	recMap            = 3
	recSnapshot       = 4
	recDeleteSnapshot = 5
	recCreateVolume   = 6
	recDeleteVolume   = 7
	recRecords        = 8
	recResizeVolume   = 9
	recCloneVolume    = 10
	recRenameFile     = 11
	recReplaceFiles   = 12
)

// Runs of a write record.
const (
	runHole  = 0 // uvarint blocks
	runFresh = 1 // uvarint first extent, uvarint extents, address; per extent blocks, fingerprint, CRCs
	runKnown = 2 // uvarint first slot, uvarint blocks: consecutive slots of known extents
)

// flagInline in a write record: the data of its fresh extents follows the runs
// and must be put into the segments again when the record is replayed.
const flagInline = 1

// enc builds a record; dec reads one. A dec that runs out of bytes, or meets a
// number out of bounds, fails once and for all.
type enc struct{ b []byte }

func (e *enc) byte(v byte)    { e.b = append(e.b, v) }
func (e *enc) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *enc) u32(v uint32)   { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *enc) raw(v []byte)   { e.b = append(e.b, v...) }
func (e *enc) bytes(v []byte) { e.uint(uint64(len(v))); e.raw(v) }
func (e *enc) records(r []Record) {
	e.uint(uint64(len(r)))
	for _, rec := range r {
		e.bytes(rec.Key)
		if rec.Value == nil {
			e.byte(0)
			continue
		}
		e.byte(1)
		e.bytes(rec.Value)
	}
}

func (e *enc) ranges(ranges []Range) {
	e.uint(uint64(len(ranges)))
	for _, r := range ranges {
		e.uint(uint64(r.Offset))
		e.uint(uint64(r.Length))
	}
}

type dec struct {
	b   []byte
	err error
}

func (d *dec) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("%w: record ends early or holds a bad number", ErrCorrupt)
	}
	d.b = nil
}

func (d *dec) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *dec) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *dec) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *dec) uint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of things that take at least size bytes each.
func (d *dec) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *dec) int63() int64 {
	v := d.uint()
	if v > 1<<63-1 {
		d.fail()
		return 0
	}
	return int64(v)
}

// bytes returns a copy.
func (d *dec) bytes() []byte {
	return append([]byte{}, d.take(d.uint())...)
}

func (d *dec) records() []Record {
	recs := make([]Record, 0, d.count(2))
	for range cap(recs) {
		r := Record{Key: d.bytes()}
		if d.byte() != 0 {
			r.Value = d.bytes()
		}
		recs = append(recs, r)
	}
	return recs
}

func (d *dec) ranges() []Range {
	ranges := make([]Range, 0, d.count(2))
	for range cap(ranges) {
		ranges = append(ranges, Range{Offset: d.int63(), Length: d.int63()})
	}
	return ranges
}

func (d *dec) id16() (id [16]byte) {
	copy(id[:], d.take(16))
	return id
}

// writeHead starts a write record; runs of so many blocks follow.
func (e *enc) writeHead(volume, block uint64, blocks int, flags byte) {
	e.byte(recWrite)
	e.uint(volume)
	e.uint(block)
	e.uint(uint64(blocks))
	e.byte(flags)
}

func (e *enc) holeRun(blocks int) {
	e.byte(runHole)
	e.uint(uint64(blocks))
}

func (e *enc) knownRun(first extent.Slot, blocks int) {
	e.byte(runKnown)
	e.uint(uint64(first))
	e.uint(uint64(blocks))
}

// freshRun describes new extents with consecutive IDs that lie one behind the
// other in a segment.
func (e *enc) freshRun(first extent.ID, extents []freshExtent) {
	e.byte(runFresh)
	e.uint(uint64(first))
	e.uint(uint64(len(extents)))
	e.u32(uint32(extents[0].Addr.Segment))
	e.u32(extents[0].Addr.Block)
	for i := range extents {
		x := &extents[i].Extent
		e.byte(x.Blocks)
		e.raw(x.Fingerprint[:])
		for _, crc := range x.CRC[:x.Blocks] {
			e.u32(crc)
		}
	}
}

// freshExtents reads a fresh run after its tag.
func (d *dec) freshExtents(unit int) (first extent.ID, extents []freshExtent) {
	first = extent.ID(d.uint())
	n := d.count(1 + len(extent.Fingerprint{}) + 4)
	addr := segment.Addr{Segment: segment.ID(d.u32()), Block: d.u32()}
	for range n {
		x := freshExtent{Extent: extent.Extent{Addr: addr, Blocks: d.byte()}}
		if x.Blocks == 0 || int(x.Blocks) > unit {
			d.fail()
			return first, nil
		}
		copy(x.Fingerprint[:], d.take(uint64(len(x.Fingerprint))))
		for i := range x.Blocks {
			x.CRC[i] = d.u32()
		}
		extents = append(extents, x)
		addr.Block += uint32(x.Blocks)
	}
	return first, extents
}
