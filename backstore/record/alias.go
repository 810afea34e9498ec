package record

import (
	"fmt"

	"odx/backstore/codec"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// Alias gives a segment of another store a number of this one. Writes after it can have extents
// there.
//
// Layout: kind, uvarint number, and the row.
type Alias struct {
	ID  segment.ID
	Row rows.Alias
}

// Encode implements Record.
func (r *Alias) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindAlias)
	e.Uint(uint64(r.ID))
	r.Row.Put(&e)
	return e.B, nil
}

func (r *Alias) decode(d *codec.Decoder) {
	id := d.Uint()
	r.ID, r.Row = segment.ID(id), rows.ReadAlias(d)
	if id == 0 || id != uint64(r.ID) {
		d.Fail()
	}
}

// Apply implements Record.
func (r *Alias) Apply(s State) error { return s.Alias(r) }

// Changes implements Record: no bytes of a volume or file.
func (r *Alias) Changes(*Names) []Change {
	return []Change{{Kind: "alias", What: fmt.Sprintf("segment %08x", uint32(r.ID)), Detail: fmt.Sprintf("of store %x, segment %08x", r.Row.Store, uint32(r.Row.Segment))}}
}

// Describe implements Record.
func (r *Alias) Describe() map[string]any {
	d := r.Row.Describe()
	d["kind"], d["alias"] = "alias", fmt.Sprintf("%08x", uint32(r.ID))
	return d
}
