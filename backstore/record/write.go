package record

import (
	"fmt"

	"odx/backstore/codec"
	"odx/backstore/extent"
	"odx/backstore/invariant"
	"odx/backstore/segment"
	"odx/blockdev"
)

// FreshExtent is an extent of a write that is not in the table yet.
type FreshExtent struct {
	extent.Extent
	At int // its first block in the write
}

// Of returns the extent's part of the write's data.
func (x *FreshExtent) Of(data []byte) []byte {
	return data[x.At*blockdev.BlockLength : (x.At+int(x.Blocks))*blockdev.BlockLength]
}

// Runs of a write record.
const (
	runHole  = 0 // uvarint blocks
	runFresh = 1 // uvarint first extent, uvarint extents, address; per extent blocks, fingerprint, CRCs
	runKnown = 2 // uvarint first slot, uvarint blocks: consecutive slots of known extents
)

// MaxBlocks is the most blocks that one record writes.
const MaxBlocks = 256

// flagInline in a write record: the data of its fresh extents follows the runs
// and must be put into the segments again when the record is replayed.
const flagInline = 1

// Write gives blocks of a volume other slots: none, those of extents that
// exist, or those of new ones, which it describes.
//
// Layout: kind, uvarint volume, block and blocks, flags, runs of so many blocks,
// and the data of the new extents with flagInline.
type Write struct {
	Volume, Block uint64
	Blocks        int
	Slots         [MaxBlocks]extent.Slot // 0: hole
	Known         [MaxBlocks]extent.Slot // slots of extents that existed before, else 0
	Fresh         []FreshExtent
	First         extent.ID // of fresh[0]; the others follow
	Inline        []byte    // the data of fresh, when the record carries it

	buf codec.Encoder // for encode, used again
}

// Encode implements Record.
func (r *Write) Encode() (head, data []byte) {
	if len(r.buf.B) == 0 {
		r.Build()
	}
	return r.buf.B, r.Inline
}

// Build makes what encode returns, from now on, in memory that is used again.
func (r *Write) Build() {
	e := &r.buf
	e.B = e.B[:0]
	e.Byte(KindWrite)
	e.Uint(r.Volume)
	e.Uint(r.Block)
	e.Uint(uint64(r.Blocks))
	if r.Inline != nil {
		e.Byte(flagInline)
	} else {
		e.Byte(0)
	}
	fresh := 0
	for i := 0; i < r.Blocks; {
		switch {
		case r.Slots[i] == 0:
			n := r.holes(i)
			e.Byte(runHole)
			e.Uint(uint64(n))
			i += n
		case r.Known[i] != 0:
			n := 1
			for i+n < r.Blocks && r.Known[i+n] == r.Known[i]+extent.Slot(n) {
				n++
			}
			e.Byte(runKnown)
			e.Uint(uint64(r.Known[i]))
			e.Uint(uint64(n))
			i += n
		default:
			from := fresh
			for fresh < len(r.Fresh) && r.Fresh[fresh].At == i && Follows(r.Fresh, from, fresh) {
				i += int(r.Fresh[fresh].Blocks)
				fresh++
			}
			encodeFresh(e, r.First+extent.ID(from), r.Fresh[from:fresh])
		}
	}
}

// Follows reports whether extent i lies right after extent i-1, where a run
// that starts at from has both.
func Follows(fresh []FreshExtent, from, i int) bool {
	if i == from {
		return true
	}
	prev := fresh[i-1].Addr
	prev.Block += uint32(fresh[i-1].Blocks)
	return fresh[i].Addr == prev
}

func (r *Write) holes(i int) int {
	n := 0
	for i+n < r.Blocks && r.Slots[i+n] == 0 {
		n++
	}
	return n
}

// encodeFresh describes new extents with consecutive IDs that lie one after the
// other in a segment.
func encodeFresh(e *codec.Encoder, first extent.ID, extents []FreshExtent) {
	e.Byte(runFresh)
	e.Uint(uint64(first))
	e.Uint(uint64(len(extents)))
	e.U32(uint32(extents[0].Addr.Segment))
	e.U32(extents[0].Addr.Block)
	for i := range extents {
		x := &extents[i].Extent
		e.Byte(x.Blocks)
		e.Raw(x.Fingerprint[:])
		for _, crc := range x.CRC[:x.Blocks] {
			e.U32(crc)
		}
	}
}

func (r *Write) decode(d *codec.Decoder) {
	r.Volume, r.Block = d.Uint(), d.Uint()
	blocks := d.Uint()
	inline := d.Byte()&flagInline != 0
	if blocks > MaxBlocks {
		d.Fail()
	}
	for d.Err == nil && r.Blocks < int(blocks) {
		r.decodeRun(d, int(blocks)-r.Blocks)
	}
	if inline {
		r.Inline = d.Take(uint64(r.FreshBytes()))
	}
}

// Apply implements Record.
func (r *Write) Apply(s State) error { return s.Write(r) }

// Changes implements Record.
func (r *Write) Changes(n *Names) []Change {
	return blocksOf("write", n.of(r.Volume), r.Block, uint64(r.Blocks), "")
}

// Describe implements Record.
func (r *Write) Describe() map[string]any {
	fresh := []any{}
	for i := range r.Fresh {
		x := &r.Fresh[i]
		fresh = append(fresh, map[string]any{"extent": r.First + extent.ID(i), "at": x.At, "segment": fmt.Sprintf("%08x", uint32(x.Addr.Segment)), "block": x.Addr.Block, "blocks": x.Blocks})
	}
	return map[string]any{"kind": "write", "volume": r.Volume, "block": r.Block, "blocks": r.Blocks, "slots": r.Slots[:r.Blocks], "new": fresh, "carries_data": r.Inline != nil}
}

// decodeRun reads a run of at most room blocks.
func (r *Write) decodeRun(d *codec.Decoder, room int) {
	switch d.Byte() {
	case runHole:
		n := d.Uint()
		if n == 0 || n > uint64(room) {
			d.Fail()
			return
		}
		r.Blocks += int(n)
	case runKnown:
		first, n := extent.Slot(d.Uint()), d.Uint()
		if n == 0 || first == 0 || n > uint64(room) {
			d.Fail()
			return
		}
		for i := range n {
			r.Slots[r.Blocks], r.Known[r.Blocks] = first+extent.Slot(i), first+extent.Slot(i)
			r.Blocks++
		}
	case runFresh:
		r.decodeFresh(d, room)
	default:
		d.Fail()
	}
}

func (r *Write) decodeFresh(d *codec.Decoder, room int) {
	first := extent.ID(d.Uint())
	n := d.Count(1 + len(extent.Fingerprint{}) + 4)
	addr := segment.Addr{Segment: segment.ID(d.U32()), Block: d.U32()}
	if len(r.Fresh) == 0 {
		r.First = first
	}
	if n == 0 || first == 0 || first != r.First+extent.ID(len(r.Fresh)) {
		d.Fail()
		return
	}
	for range n {
		x := FreshExtent{Extent: extent.Extent{Addr: addr, Blocks: d.Byte()}, At: r.Blocks}
		if x.Blocks == 0 || int(x.Blocks) > d.Unit || int(x.Blocks) > room {
			d.Fail()
			return
		}
		copy(x.Fingerprint[:], d.Take(uint64(len(x.Fingerprint))))
		for i := range x.Blocks {
			x.CRC[i] = d.U32()
		}
		id := r.First + extent.ID(len(r.Fresh))
		for k := range int(x.Blocks) {
			r.Slots[r.Blocks] = id.Slot(d.Unit, k)
			r.Blocks++
		}
		r.Fresh = append(r.Fresh, x)
		addr.Block += uint32(x.Blocks)
		room -= int(x.Blocks)
	}
}

// FreshBytes returns the length of the new extents in bytes.
func (r *Write) FreshBytes() int {
	n := 0
	for i := range r.Fresh {
		n += int(r.Fresh[i].Blocks) * blockdev.BlockLength
	}
	return n
}

// Clear makes holes of blocks of a volume.
//
// Layout: kind, uvarint volume, first block, blocks.
type Clear struct{ Volume, First, Count uint64 }

// Encode implements Record.
func (r *Clear) Encode() (head, data []byte) {
	return codec.Numbers(kindClear, r.Volume, r.First, r.Count), nil
}

func (r *Clear) decode(d *codec.Decoder) {
	r.Volume, r.First, r.Count = d.Uint(), d.Uint(), d.Uint()
}

// Apply implements Record.
func (r *Clear) Apply(s State) error { return s.Clear(r) }

// Changes implements Record.
func (r *Clear) Changes(n *Names) []Change {
	return blocksOf("unmap", n.of(r.Volume), r.First, r.Count, "")
}

// Describe implements Record.
func (r *Clear) Describe() map[string]any {
	return map[string]any{"kind": "unmap", "volume": r.Volume, "block": r.First, "blocks": r.Count}
}

// Map makes blocks of a volume share those of a snapshot.
//
// Layout: kind, uvarint volume, its first block, snapshot, the first block
// there, blocks.
type Map struct{ Volume, To, Snapshot, From, Count uint64 }

// Encode implements Record.
func (r *Map) Encode() (head, data []byte) {
	return codec.Numbers(kindMap, r.Volume, r.To, r.Snapshot, r.From, r.Count), nil
}

func (r *Map) decode(d *codec.Decoder) {
	r.Volume, r.To, r.Snapshot, r.From, r.Count = d.Uint(), d.Uint(), d.Uint(), d.Uint(), d.Uint()
}

// Apply implements Record.
func (r *Map) Apply(s State) error { return s.Map(r) }

// Changes implements Record.
func (r *Map) Changes(n *Names) []Change {
	return blocksOf("map", n.of(r.Volume), r.To, r.Count, fmt.Sprintf("from snapshot %d", r.Snapshot))
}

// Describe implements Record.
func (r *Map) Describe() map[string]any {
	return map[string]any{"kind": "map", "volume": r.Volume, "block": r.To, "snapshot": r.Snapshot, "from": r.From, "blocks": r.Count}
}

// Scribble makes what is left of a write wrong, in builds with invariants: no code may use
// it any more.
func (r *Write) Scribble() {
	if !invariant.Enabled {
		return
	}
	for i := range r.Slots {
		r.Slots[i], r.Known[i] = ^extent.Slot(0), ^extent.Slot(0)
	}
	invariant.Scribble(r.buf.B)
}
