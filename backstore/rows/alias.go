package rows

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/codec"
	"odx/backstore/segment"
)

// AliasPrefix is the first byte of the key of an alias; its number as a segment follows, in
// four bytes.
const AliasPrefix = 'a'

// MaxPlace bounds the length of a place.
const MaxPlace = 255

// Alias is a segment of another store that has a number of this one: extents that lie there
// have addresses as all others.
//
// Layout: identity of the other store (16 bytes), its place, uvarint segment there.
type Alias struct {
	Store   [16]byte
	Place   string // where in the pool the files of the other store are
	Segment segment.ID
}

// Put appends the row to e.
func (r *Alias) Put(e *codec.Encoder) {
	e.Raw(r.Store[:])
	e.Bytes([]byte(r.Place))
	e.Uint(uint64(r.Segment))
}

// Encode returns the row.
func (r *Alias) Encode() []byte {
	var e codec.Encoder
	r.Put(&e)
	return e.B
}

// ReadAlias reads the row of an alias from d, which says whether it could.
func ReadAlias(d *codec.Decoder) (r Alias) {
	r.Store, r.Place = d.ID16(), string(d.Bytes())
	id := d.Uint()
	if r.Segment = segment.ID(id); id == 0 || id != uint64(r.Segment) || len(r.Place) > MaxPlace {
		d.Fail()
	}
	return r
}

// DecodeAlias reads the row of an alias.
func DecodeAlias(b []byte) (Alias, error) {
	d := codec.Decoder{B: b}
	r := ReadAlias(&d)
	d.End()
	return r, d.Err
}

// AliasKey returns the key of the row of an alias.
func AliasKey(id segment.ID) []byte {
	return binary.BigEndian.AppendUint32([]byte{AliasPrefix}, uint32(id))
}

// Describe returns what the row says, for people.
func (r *Alias) Describe() map[string]any {
	return map[string]any{"store": fmt.Sprintf("%x", r.Store), "place": r.Place, "segment": fmt.Sprintf("%08x", uint32(r.Segment))}
}

// AliasID returns the number of an alias, given the key of its row.
func AliasID(key []byte) (segment.ID, bool) {
	if len(key) != 5 || key[0] != AliasPrefix {
		return 0, false
	}
	return segment.ID(binary.BigEndian.Uint32(key[1:])), true
}
