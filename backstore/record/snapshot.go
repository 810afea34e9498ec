package record

import (
	"fmt"

	"odx/backstore/codec"
	"odx/blockdev"
)

// Snapshot takes a snapshot of ranges of a volume and puts records.
//
// Layout: kind, uvarint volume, snapshot, ranges, records.
type Snapshot struct {
	Volume, ID uint64
	Ranges     []blockdev.Range
	Records    []Client
}

// Encode implements Record.
func (r *Snapshot) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindSnapshot)
	e.Uint(r.Volume)
	e.Uint(r.ID)
	e.Ranges(r.Ranges)
	encodeClient(&e, r.Records)
	return e.B, nil
}

func (r *Snapshot) decode(d *codec.Decoder) {
	r.Volume, r.ID = d.Uint(), d.Uint()
	r.Ranges, r.Records = d.Ranges(), decodeClient(d)
}

// Apply implements Record.
func (r *Snapshot) Apply(s State) error { return s.Snapshot(r) }

// Changes returns the ranges of the volume that the snapshot has.
func (r *Snapshot) Changes(n *Names) []Change {
	c := Change{Kind: "snapshot", What: n.of(r.Volume), Detail: fmt.Sprintf("snapshot %d", r.ID)}
	if len(r.Ranges) == 0 {
		return []Change{c}
	}
	all := make([]Change, 0, len(r.Ranges))
	for _, part := range r.Ranges {
		c.Offset, c.Length = part.Offset, part.Length
		all = append(all, c)
	}
	return all
}

// Describe implements Record.
func (r *Snapshot) Describe() map[string]any {
	return map[string]any{"kind": "snapshot", "volume": r.Volume, "id": r.ID, "ranges": r.Ranges, "records": describeClient(r.Records)}
}

// DeleteSnapshot deletes a snapshot and puts records.
//
// Layout: kind, uvarint snapshot, records.
type DeleteSnapshot struct {
	ID      uint64
	Records []Client
}

// Encode implements Record.
func (r *DeleteSnapshot) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindDeleteSnapshot)
	e.Uint(r.ID)
	encodeClient(&e, r.Records)
	return e.B, nil
}

func (r *DeleteSnapshot) decode(d *codec.Decoder) { r.ID, r.Records = d.Uint(), decodeClient(d) }

// Apply implements Record.
func (r *DeleteSnapshot) Apply(s State) error { return s.DeleteSnapshot(r) }

// Changes implements Record.
func (r *DeleteSnapshot) Changes(*Names) []Change {
	return []Change{{Kind: "delete snapshot", What: fmt.Sprintf("snapshot %d", r.ID)}}
}

// Describe implements Record.
func (r *DeleteSnapshot) Describe() map[string]any {
	return map[string]any{"kind": "delete snapshot", "id": r.ID, "records": describeClient(r.Records)}
}

// PutClients puts records.
//
// Layout: kind, records.
type PutClients struct{ Records []Client }

// Encode implements Record.
func (r *PutClients) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindRecords)
	encodeClient(&e, r.Records)
	return e.B, nil
}

func (r *PutClients) decode(d *codec.Decoder) { r.Records = decodeClient(d) }

// Apply implements Record.
func (r *PutClients) Apply(s State) error { return s.PutRecords(r) }

// Changes implements Record.
func (r *PutClients) Changes(*Names) []Change {
	return []Change{{Kind: "records", What: "records"}}
}

// Describe implements Record.
func (r *PutClients) Describe() map[string]any {
	return map[string]any{"kind": "records", "records": describeClient(r.Records)}
}
