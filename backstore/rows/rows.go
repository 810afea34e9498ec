// Package rows is the metadata of a checkpoint: the keys and values of its rows, except
// those of maps and extents, whose packages own them.
package rows

import (
	"encoding/binary"

	"odx/backstore/blockmap"
	"odx/backstore/codec"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/segment"
	"odx/blockdev"
)

// Keys of the rows in the metadata engine that packages below do not own. The
// numbers of volumes and snapshots follow their prefix, in eight bytes.
const (
	VolumePrefix   = 'v'
	SnapshotPrefix = 's'
	// recordPrefix is the first byte of the key of a client's record; the client's key
	// follows.
	recordPrefix  = 'r'
	CheckpointKey = "m"
)

// Volume is what the store keeps of a volume or a file.
//
// Layout: uvarint number, id (16 bytes), name, uvarint size in bytes, uvarint
// root, its level, flags, uvarint origin, uvarint time of creation.
type Volume struct {
	Number  uint64
	ID      [16]byte
	Name    string
	Size    int64
	Root    blockmap.Root
	Flags   byte
	Origin  uint64
	Created int64
}

// Key returns the name, and which name space it is in.
func (r *Volume) Key() Name { return Name{r.Name, r.Flags&FlagFile != 0} }

// Encode returns the row.
func (r *Volume) Encode() []byte {
	var e codec.Encoder
	e.Uint(r.Number)
	e.Raw(r.ID[:])
	e.Bytes([]byte(r.Name))
	e.Uint(uint64(r.Size))
	e.Uint(r.Root.Node)
	e.Byte(r.Root.Level)
	e.Byte(r.Flags)
	e.Uint(r.Origin)
	e.Uint(uint64(r.Created))
	return e.B
}

// ReadVolume reads the row of a volume or a file from d, which says whether it could.
func ReadVolume(d *codec.Decoder) Volume {
	r := Volume{Number: d.Uint(), ID: d.ID16(), Name: string(d.Bytes()), Size: d.Int63()}
	r.Root = blockmap.Root{Node: d.Uint(), Level: d.Byte()}
	if len(d.B) > 0 { // the first stores kept no more than this
		r.Flags, r.Origin, r.Created = d.Byte(), d.Uint(), d.Int63()
	}
	check := CheckSize
	if r.Flags&FlagFile != 0 {
		check = CheckFileSize
	}
	if r.Root.Level > blockmap.MaxLevel || check(r.Size) != nil || r.Root.Blocks() < uint64(r.Size)/blockdev.BlockLength {
		d.Fail()
	}
	return r
}

// Snapshot is what the store keeps of a snapshot.
//
// Layout: uvarint number, deleted (0 or 1), uvarint root, its level, ranges.
type Snapshot struct {
	ID      uint64
	Deleted bool
	Root    blockmap.Root
	Ranges  []blockdev.Range
}

// Encode returns the row.
func (r *Snapshot) Encode() []byte {
	var e codec.Encoder
	e.Uint(r.ID)
	if r.Deleted {
		e.Byte(1)
	} else {
		e.Byte(0)
	}
	e.Uint(r.Root.Node)
	e.Byte(r.Root.Level)
	e.Ranges(r.Ranges)
	return e.B
}

// readSnapshot reads the row of a snapshot from d, which says whether it could.
func readSnapshot(d *codec.Decoder) Snapshot {
	r := Snapshot{ID: d.Uint(), Deleted: d.Byte() != 0}
	r.Root = blockmap.Root{Node: d.Uint(), Level: d.Byte()}
	r.Ranges = d.Ranges()
	if r.Root.Level > blockmap.MaxLevel {
		d.Fail()
	}
	return r
}

// Checkpoint is the part of a checkpoint that is one row.
//
// Layout: uvarint first LSN, next node, next extent, next segment, last volume,
// last snapshot, number of pinned extents, these, and the dropped nodes.
type Checkpoint struct {
	FirstLSN     journal.LSN // of the first record that is not in the checkpoint
	NextNode     uint64
	NextExtent   extent.ID
	NextSegment  segment.ID
	LastVolume   uint64
	LastSnapshot uint64
	Pinned       []extent.ID
	Dropped      []uint64
}

// Encode returns the row.
func (st *Checkpoint) Encode() []byte {
	var e codec.Encoder
	for _, v := range []uint64{uint64(st.FirstLSN), st.NextNode, uint64(st.NextExtent), uint64(st.NextSegment), st.LastVolume, st.LastSnapshot} {
		e.Uint(v)
	}
	e.Uint(uint64(len(st.Pinned)))
	for _, id := range st.Pinned {
		e.Uint(uint64(id))
	}
	e.Raw(blockmap.EncodeDropped(st.Dropped))
	return e.B
}

// DecodeCheckpoint reads the row of a checkpoint.
func DecodeCheckpoint(b []byte) (st Checkpoint, err error) {
	d := codec.Decoder{B: b}
	st.FirstLSN = journal.LSN(d.Uint())
	st.NextNode = d.Uint()
	st.NextExtent = extent.ID(d.Uint())
	st.NextSegment = segment.ID(d.Uint())
	st.LastVolume = d.Uint()
	st.LastSnapshot = d.Uint()
	for range d.Count(1) {
		st.Pinned = append(st.Pinned, extent.ID(d.Uint()))
	}
	if d.Err != nil {
		return st, d.Err
	}
	st.Dropped, err = blockmap.DecodeDropped(d.B)
	return st, err
}

// DecodeVolume reads the row of a volume or a file.
func DecodeVolume(b []byte) (Volume, error) {
	d := codec.Decoder{B: b}
	r := ReadVolume(&d)
	return r, d.Err
}

// DecodeSnapshot reads the row of a snapshot.
func DecodeSnapshot(b []byte) (Snapshot, error) {
	d := codec.Decoder{B: b}
	r := readSnapshot(&d)
	return r, d.Err
}

// Key returns the key of the row of a volume or a snapshot.
func Key(prefix byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, number)
}

// RecordKey returns the key of the row of a client's record.
func RecordKey(key []byte) []byte { return append([]byte{recordPrefix}, key...) }
