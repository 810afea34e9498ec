package backstore

import (
	"fmt"

	"odx/backstore/codec"
)

// snapshotRecord takes a snapshot of ranges of a volume and puts records.
//
// Layout: kind, uvarint volume, snapshot, ranges, records.
type snapshotRecord struct {
	volume, id uint64
	ranges     []Range
	records    []Record
}

func (r *snapshotRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recSnapshot)
	e.Uint(r.volume)
	e.Uint(r.id)
	e.Ranges(r.ranges)
	encodeClient(&e, r.records)
	return e.B, nil
}

func (r *snapshotRecord) decode(d *codec.Decoder) {
	r.volume, r.id = d.Uint(), d.Uint()
	r.ranges, r.records = d.Ranges(), decodeClient(d)
}

func (r *snapshotRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	return s.takeSnapshot(v, &snapshotState{id: r.id, ranges: r.ranges}, r.records, func() {})
}

// deleteSnapshotRecord deletes a snapshot and puts records.
//
// Layout: kind, uvarint snapshot, records.
type deleteSnapshotRecord struct {
	id      uint64
	records []Record
}

func (r *deleteSnapshotRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recDeleteSnapshot)
	e.Uint(r.id)
	encodeClient(&e, r.records)
	return e.B, nil
}

func (r *deleteSnapshotRecord) decode(d *codec.Decoder) { r.id, r.records = d.Uint(), decodeClient(d) }

// apply keeps the tree until the replay ends: a later record can copy from it,
// where a handle had kept it alive.
func (r *deleteSnapshotRecord) apply(s *Store) error {
	st := s.snapshots[r.id]
	if st == nil {
		return fmt.Errorf("%w: it names snapshot %d, which does not exist", ErrCorrupt, r.id)
	}
	st.deleted = true
	s.changedSnaps[st.id] = true
	s.putRecords(r.records)
	return nil
}

// recordsRecord puts records.
//
// Layout: kind, records.
type recordsRecord struct{ records []Record }

func (r *recordsRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recRecords)
	encodeClient(&e, r.records)
	return e.B, nil
}

func (r *recordsRecord) decode(d *codec.Decoder) { r.records = decodeClient(d) }

func (r *recordsRecord) apply(s *Store) error {
	s.putRecords(r.records)
	return nil
}
