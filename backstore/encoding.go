package backstore

import (
	"encoding/binary"
	"fmt"
)

// enc builds a record or a row; dec reads one. A dec that runs out of bytes, or
// meets a number out of bounds, fails once and for all.
type enc struct{ b []byte }

func (e *enc) byte(v byte)    { e.b = append(e.b, v) }
func (e *enc) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *enc) u32(v uint32)   { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *enc) raw(v []byte)   { e.b = append(e.b, v...) }
func (e *enc) bytes(v []byte) { e.uint(uint64(len(v))); e.raw(v) }

// numbers returns a record that is nothing but numbers.
func numbers(kind byte, values ...uint64) []byte {
	e := enc{b: make([]byte, 0, 1+len(values)*binary.MaxVarintLen64)}
	e.byte(kind)
	for _, v := range values {
		e.uint(v)
	}
	return e.b
}

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
	b    []byte
	err  error
	unit int // blocks of the largest extent of the store
}

func (d *dec) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("%w: record or row ends early, holds a bad number, or goes on after its end", ErrCorrupt)
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

// end fails when something follows what was read.
func (d *dec) end() {
	if len(d.b) > 0 {
		d.fail()
	}
}

func (d *dec) id16() (id [16]byte) {
	copy(id[:], d.take(16))
	return id
}
