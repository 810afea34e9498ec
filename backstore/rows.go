package backstore

import (
	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/segment"
)

// Keys of the rows in the metadata engine that packages below do not own. The
// numbers of volumes and snapshots follow their prefix, in eight bytes.
const (
	volumePrefix   = 'v'
	snapshotPrefix = 's'
	stateKey       = "m"
)

// volumeRow is what the store keeps of a volume or a file.
//
// Layout: uvarint number, id (16 bytes), name, uvarint size in bytes, uvarint
// root, its level, flags, uvarint origin, uvarint time of creation.
type volumeRow struct {
	number  uint64
	id      [16]byte
	name    string
	size    int64
	root    blockmap.Root
	flags   byte
	origin  uint64
	created int64
}

func (r *volumeRow) key() nameKey { return nameKey{r.name, r.flags&flagFile != 0} }

func (r *volumeRow) encode() []byte {
	var e enc
	e.uint(r.number)
	e.raw(r.id[:])
	e.bytes([]byte(r.name))
	e.uint(uint64(r.size))
	e.uint(r.root.Node)
	e.byte(r.root.Level)
	e.byte(r.flags)
	e.uint(r.origin)
	e.uint(uint64(r.created))
	return e.b
}

func (d *dec) volumeRow() volumeRow {
	r := volumeRow{number: d.uint(), id: d.id16(), name: string(d.bytes()), size: d.int63()}
	r.root = blockmap.Root{Node: d.uint(), Level: d.byte()}
	if len(d.b) > 0 { // the first stores kept no more than this
		r.flags, r.origin, r.created = d.byte(), d.uint(), d.int63()
	}
	check := checkSize
	if r.flags&flagFile != 0 {
		check = checkFileSize
	}
	if r.root.Level > blockmap.MaxLevel || check(r.size) != nil || r.root.Blocks() < uint64(r.size)/BlockLength {
		d.fail()
	}
	return r
}

// row returns what is stored of the volume.
func (v *Volume) row() *volumeRow {
	return &volumeRow{number: v.number, id: v.id, name: v.Name(), size: v.size, root: v.root, flags: v.flags(), origin: v.origin, created: v.created}
}

// volumeOf returns the volume that a row describes.
func (s *Store) volumeOf(r *volumeRow) *Volume {
	v := s.newVolume(r.name)
	v.number, v.id, v.size, v.root, v.origin, v.created = r.number, r.id, r.size, r.root, r.origin, r.created
	v.setFlags(r.flags)
	return v
}

// snapshotRow is what the store keeps of a snapshot.
//
// Layout: uvarint number, deleted (0 or 1), uvarint root, its level, ranges.
type snapshotRow struct {
	id      uint64
	deleted bool
	root    blockmap.Root
	ranges  []Range
}

func (r *snapshotRow) encode() []byte {
	var e enc
	e.uint(r.id)
	if r.deleted {
		e.byte(1)
	} else {
		e.byte(0)
	}
	e.uint(r.root.Node)
	e.byte(r.root.Level)
	e.ranges(r.ranges)
	return e.b
}

func (d *dec) snapshotRow() snapshotRow {
	r := snapshotRow{id: d.uint(), deleted: d.byte() != 0}
	r.root = blockmap.Root{Node: d.uint(), Level: d.byte()}
	r.ranges = d.ranges()
	if r.root.Level > blockmap.MaxLevel {
		d.fail()
	}
	return r
}

// row returns what is stored of the snapshot.
func (st *snapshotState) row() *snapshotRow {
	return &snapshotRow{id: st.id, deleted: st.deleted, root: st.root, ranges: st.ranges}
}

// state returns the snapshot that the row describes.
func (r *snapshotRow) state() *snapshotState {
	st := &snapshotState{id: r.id, deleted: r.deleted, root: r.root, ranges: r.ranges}
	for _, part := range st.ranges {
		st.length += part.Length
	}
	return st
}

// state is the part of a checkpoint that is one row.
//
// Layout: uvarint first LSN, next node, next extent, next segment, last volume,
// last snapshot, number of pinned extents, these, and the dropped nodes.
type state struct {
	firstLSN     journal.LSN // of the first record that is not in the checkpoint
	nextNode     uint64
	nextExtent   extent.ID
	nextSegment  segment.ID
	lastVolume   uint64
	lastSnapshot uint64
	pinned       []extent.ID
	dropped      []uint64
}

func (st *state) encode() []byte {
	var e enc
	for _, v := range []uint64{uint64(st.firstLSN), st.nextNode, uint64(st.nextExtent), uint64(st.nextSegment), st.lastVolume, st.lastSnapshot} {
		e.uint(v)
	}
	e.uint(uint64(len(st.pinned)))
	for _, id := range st.pinned {
		e.uint(uint64(id))
	}
	e.raw(blockmap.EncodeDropped(st.dropped))
	return e.b
}

func decodeState(b []byte) (st state, err error) {
	d := dec{b: b}
	st.firstLSN = journal.LSN(d.uint())
	st.nextNode = d.uint()
	st.nextExtent = extent.ID(d.uint())
	st.nextSegment = segment.ID(d.uint())
	st.lastVolume = d.uint()
	st.lastSnapshot = d.uint()
	for range d.count(1) {
		st.pinned = append(st.pinned, extent.ID(d.uint()))
	}
	if d.err != nil {
		return st, d.err
	}
	st.dropped, err = blockmap.DecodeDropped(d.b)
	return st, err
}
