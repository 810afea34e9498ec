package backstore

import (
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/codec"
	"odx/backstore/extent"
	"odx/backstore/segment"
)

// freshExtent is an extent of a write that is not in the table yet.
type freshExtent struct {
	extent.Extent
	at int // its first block in the write
}

// of returns the extent's part of the write's data.
func (x *freshExtent) of(data []byte) []byte {
	return data[x.at*BlockLength : (x.at+int(x.Blocks))*BlockLength]
}

// Runs of a write record.
const (
	runHole  = 0 // uvarint blocks
	runFresh = 1 // uvarint first extent, uvarint extents, address; per extent blocks, fingerprint, CRCs
	runKnown = 2 // uvarint first slot, uvarint blocks: consecutive slots of known extents
)

// flagInline in a write record: the data of its fresh extents follows the runs
// and must be put into the segments again when the record is replayed.
const flagInline = 1

// writeRecord gives blocks of a volume other slots: none, those of extents that
// exist, or those of new ones, which it describes.
//
// Layout: kind, uvarint volume, block and blocks, flags, runs of so many blocks,
// and the data of the new extents with flagInline.
type writeRecord struct {
	volume, block uint64
	blocks        int
	slots         [planBlocks]extent.Slot // 0: hole
	known         [planBlocks]extent.Slot // slots of extents that existed before, else 0
	fresh         []freshExtent
	first         extent.ID // of fresh[0]; the others follow
	inline        []byte    // the data of fresh, when the record carries it

	buf codec.Encoder // for encode, used again
}

func (r *writeRecord) encode() (head, data []byte) {
	if len(r.buf.B) == 0 {
		r.build()
	}
	return r.buf.B, r.inline
}

// build makes what encode returns, from now on, in memory that is used again.
func (r *writeRecord) build() {
	e := &r.buf
	e.B = e.B[:0]
	e.Byte(recWrite)
	e.Uint(r.volume)
	e.Uint(r.block)
	e.Uint(uint64(r.blocks))
	if r.inline != nil {
		e.Byte(flagInline)
	} else {
		e.Byte(0)
	}
	fresh := 0
	for i := 0; i < r.blocks; {
		switch {
		case r.slots[i] == 0:
			n := r.holes(i)
			e.Byte(runHole)
			e.Uint(uint64(n))
			i += n
		case r.known[i] != 0:
			n := 1
			for i+n < r.blocks && r.known[i+n] == r.known[i]+extent.Slot(n) {
				n++
			}
			e.Byte(runKnown)
			e.Uint(uint64(r.known[i]))
			e.Uint(uint64(n))
			i += n
		default:
			from := fresh
			for fresh < len(r.fresh) && r.fresh[fresh].at == i && follows(r.fresh, from, fresh) {
				i += int(r.fresh[fresh].Blocks)
				fresh++
			}
			encodeFresh(e, r.first+extent.ID(from), r.fresh[from:fresh])
		}
	}
}

// follows reports whether extent i lies right after extent i-1, where a run
// that starts at from has both.
func follows(fresh []freshExtent, from, i int) bool {
	if i == from {
		return true
	}
	prev := fresh[i-1].Addr
	prev.Block += uint32(fresh[i-1].Blocks)
	return fresh[i].Addr == prev
}

func (r *writeRecord) holes(i int) int {
	n := 0
	for i+n < r.blocks && r.slots[i+n] == 0 {
		n++
	}
	return n
}

// encodeFresh describes new extents with consecutive IDs that lie one after the
// other in a segment.
func encodeFresh(e *codec.Encoder, first extent.ID, extents []freshExtent) {
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

func (r *writeRecord) decode(d *codec.Decoder) {
	r.volume, r.block = d.Uint(), d.Uint()
	blocks := d.Uint()
	inline := d.Byte()&flagInline != 0
	if blocks > planBlocks {
		d.Fail()
	}
	for d.Err == nil && r.blocks < int(blocks) {
		r.decodeRun(d, int(blocks)-r.blocks)
	}
	if inline {
		r.inline = d.Take(uint64(r.freshBytes()))
	}
}

// decodeRun reads a run of at most room blocks.
func (r *writeRecord) decodeRun(d *codec.Decoder, room int) {
	switch d.Byte() {
	case runHole:
		n := d.Uint()
		if n == 0 || n > uint64(room) {
			d.Fail()
			return
		}
		r.blocks += int(n)
	case runKnown:
		first, n := extent.Slot(d.Uint()), d.Uint()
		if n == 0 || first == 0 || n > uint64(room) {
			d.Fail()
			return
		}
		for i := range n {
			r.slots[r.blocks], r.known[r.blocks] = first+extent.Slot(i), first+extent.Slot(i)
			r.blocks++
		}
	case runFresh:
		r.decodeFresh(d, room)
	default:
		d.Fail()
	}
}

func (r *writeRecord) decodeFresh(d *codec.Decoder, room int) {
	first := extent.ID(d.Uint())
	n := d.Count(1 + len(extent.Fingerprint{}) + 4)
	addr := segment.Addr{Segment: segment.ID(d.U32()), Block: d.U32()}
	if len(r.fresh) == 0 {
		r.first = first
	}
	if n == 0 || first == 0 || first != r.first+extent.ID(len(r.fresh)) {
		d.Fail()
		return
	}
	for range n {
		x := freshExtent{Extent: extent.Extent{Addr: addr, Blocks: d.Byte()}, at: r.blocks}
		if x.Blocks == 0 || int(x.Blocks) > d.Unit || int(x.Blocks) > room {
			d.Fail()
			return
		}
		copy(x.Fingerprint[:], d.Take(uint64(len(x.Fingerprint))))
		for i := range x.Blocks {
			x.CRC[i] = d.U32()
		}
		id := r.first + extent.ID(len(r.fresh))
		for k := range int(x.Blocks) {
			r.slots[r.blocks] = id.Slot(d.Unit, k)
			r.blocks++
		}
		r.fresh = append(r.fresh, x)
		addr.Block += uint32(x.Blocks)
		room -= int(x.Blocks)
	}
}

func (r *writeRecord) freshBytes() int {
	n := 0
	for i := range r.fresh {
		n += int(r.fresh[i].Blocks) * BlockLength
	}
	return n
}

func (r *writeRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	// The writer had pins that kept known extents; here only the record says that
	// they exist.
	for i := 0; i < r.blocks; i++ {
		n := 0
		for i+n < r.blocks && r.known[i+n] != 0 {
			n++
		}
		if n == 0 {
			continue
		}
		if err := s.extents.Resolve(r.known[i:i+n], make([]extent.Location, n)); err != nil {
			return err
		}
		i += n
	}
	if r.inline != nil && len(r.fresh) > 0 {
		if err := s.restoreInline(r); err != nil {
			return err
		}
	}
	if err := inTree(v.root, r.block, uint64(r.blocks)); err != nil {
		return err
	}
	return s.install(v, r)
}

// touchWrite reads what install needs, so that it does not stop half done.
func (s *Store) touchWrite(v *Volume, r *writeRecord) error {
	if err := s.extents.TouchNew(r.first, len(r.fresh)); err != nil {
		return err
	}
	if err := s.extents.Touch(r.known[:r.blocks]); err != nil {
		return err
	}
	return s.forest.TouchSet(v.root, r.block, uint64(r.blocks))
}

// install puts a write into a volume's map.
func (s *Store) install(v *Volume, r *writeRecord) error {
	for i := range r.fresh {
		if err := s.extents.Create(r.first+extent.ID(i), &r.fresh[i].Extent); err != nil {
			return err
		}
	}
	if err := s.extents.Ref(r.known[:r.blocks]); err != nil {
		return err
	}
	slots := r.slots[:r.blocks]
	for i := 0; i < len(slots); {
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0) == (slots[i] == 0) {
			n++
		}
		var err error
		if slots[i] == 0 {
			err = s.forest.Clear(&v.root, r.block+uint64(i), uint64(n))
		} else {
			err = s.forest.Set(&v.root, r.block+uint64(i), slots[i:i+n])
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// clearRecord makes holes of blocks of a volume.
//
// Layout: kind, uvarint volume, first block, blocks.
type clearRecord struct{ volume, first, count uint64 }

func (r *clearRecord) encode() (head, data []byte) {
	return codec.Numbers(recClear, r.volume, r.first, r.count), nil
}

func (r *clearRecord) decode(d *codec.Decoder) {
	r.volume, r.first, r.count = d.Uint(), d.Uint(), d.Uint()
}

func (r *clearRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	if err := inTree(v.root, r.first, r.count); err != nil {
		return err
	}
	return s.forest.Clear(&v.root, r.first, r.count)
}

// mapRecord makes blocks of a volume share those of a snapshot.
//
// Layout: kind, uvarint volume, its first block, snapshot, the first block
// there, blocks.
type mapRecord struct{ volume, to, snapshot, from, count uint64 }

func (r *mapRecord) encode() (head, data []byte) {
	return codec.Numbers(recMap, r.volume, r.to, r.snapshot, r.from, r.count), nil
}

func (r *mapRecord) decode(d *codec.Decoder) {
	r.volume, r.to, r.snapshot, r.from, r.count = d.Uint(), d.Uint(), d.Uint(), d.Uint(), d.Uint()
}

func (r *mapRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	st := s.snapshots[r.snapshot]
	if st == nil {
		return fmt.Errorf("%w: it names snapshot %d, which does not exist", ErrCorrupt, r.snapshot)
	}
	if err := inTree(v.root, r.to, r.count); err != nil {
		return err
	}
	if err := inTree(st.root, r.from, r.count); err != nil {
		return err
	}
	to, from, n := r.to, r.from, r.count
	for n > 0 {
		done, err := s.forest.Copy(&v.root, to, st.root, from, n, mapStep)
		if err != nil {
			return err
		}
		to, from, n = to+done, from+done, n-done
	}
	return nil
}

// inTree reports whether blocks that a record names are within a tree.
func inTree(r blockmap.Root, first, count uint64) error {
	if first > r.Blocks() || count > r.Blocks()-first {
		return fmt.Errorf("%w: %d blocks at block %d are beyond the tree", ErrCorrupt, count, first)
	}
	return nil
}

// errLostVolume: a record names a volume that does not exist.
var errLostVolume = fmt.Errorf("%w: the volume that it names does not exist", ErrCorrupt)

func (s *Store) volumeNumber(number uint64) (*Volume, error) {
	v := s.volumes[number]
	if v == nil {
		return nil, fmt.Errorf("%w: number %d", errLostVolume, number)
	}
	return v, nil
}
