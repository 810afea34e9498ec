// Package codec is how rows of metadata and records of the journal have numbers and
// bytes: numbers as in encoding/binary's uvarint, or as four bytes, big-endian; bytes
// after their number.
package codec

import (
	"encoding/binary"
	"fmt"

	"odx/blockdev"
)

// Encoder builds a record or a row in B.
type Encoder struct{ B []byte }

// Byte appends a byte.
func (e *Encoder) Byte(v byte) { e.B = append(e.B, v) }

// Uint appends a uvarint.
func (e *Encoder) Uint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// U32 appends four bytes.
func (e *Encoder) U32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }

// Raw appends bytes without their number.
func (e *Encoder) Raw(v []byte) { e.B = append(e.B, v...) }

// Bytes appends the number of bytes, and the bytes.
func (e *Encoder) Bytes(v []byte) { e.Uint(uint64(len(v))); e.Raw(v) }

// Numbers returns a record that is nothing but numbers.
func Numbers(kind byte, values ...uint64) []byte {
	e := Encoder{B: make([]byte, 0, 1+len(values)*binary.MaxVarintLen64)}
	e.Byte(kind)
	for _, v := range values {
		e.Uint(v)
	}
	return e.B
}

// Ranges appends the number of ranges, and offset and length of each.
func (e *Encoder) Ranges(ranges []blockdev.Range) {
	e.Uint(uint64(len(ranges)))
	for _, r := range ranges {
		e.Uint(uint64(r.Offset))
		e.Uint(uint64(r.Length))
	}
}

// Decoder reads a record or a row, of which B is what is left. It fails once and for all
// when it runs out of bytes or meets a number out of bounds.
type Decoder struct {
	B    []byte
	Err  error
	Unit int // blocks of the largest extent of the store
}

// Fail ends the reading with an error.
func (d *Decoder) Fail() {
	if d.Err == nil {
		d.Err = fmt.Errorf("%w: record or row ends early, holds a bad number, or goes on after its end", blockdev.ErrCorrupt)
	}
	d.B = nil
}

// Take reads n bytes, which stay those of B.
func (d *Decoder) Take(n uint64) []byte {
	if d.Err != nil || n > uint64(len(d.B)) {
		d.Fail()
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}

// Byte reads a byte.
func (d *Decoder) Byte() byte {
	if v := d.Take(1); v != nil {
		return v[0]
	}
	return 0
}

// U32 reads four bytes.
func (d *Decoder) U32() uint32 {
	if v := d.Take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// Uint reads a uvarint.
func (d *Decoder) Uint() uint64 {
	if d.Err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Count reads a number of things that take at least size bytes each.
func (d *Decoder) Count(size int) int {
	n := d.Uint()
	if n > uint64(len(d.B)/size) {
		d.Fail()
		return 0
	}
	return int(n)
}

// Int63 reads a uvarint of at most 63 bits.
func (d *Decoder) Int63() int64 {
	v := d.Uint()
	if v > 1<<63-1 {
		d.Fail()
		return 0
	}
	return int64(v)
}

// Bytes reads bytes and returns a copy.
func (d *Decoder) Bytes() []byte {
	return append([]byte{}, d.Take(d.Uint())...)
}

// Ranges reads ranges.
func (d *Decoder) Ranges() []blockdev.Range {
	ranges := make([]blockdev.Range, 0, d.Count(2))
	for range cap(ranges) {
		ranges = append(ranges, blockdev.Range{Offset: d.Int63(), Length: d.Int63()})
	}
	return ranges
}

// End fails when something follows what was read.
func (d *Decoder) End() {
	if len(d.B) > 0 {
		d.Fail()
	}
}

// ID16 reads 16 bytes.
func (d *Decoder) ID16() (id [16]byte) {
	copy(id[:], d.Take(16))
	return id
}
