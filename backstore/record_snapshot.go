package backstore

import (
	"fmt"
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
	var e enc
	e.byte(recSnapshot)
	e.uint(r.volume)
	e.uint(r.id)
	e.ranges(r.ranges)
	e.records(r.records)
	return e.b, nil
}

func (r *snapshotRecord) decode(d *dec) {
	r.volume, r.id = d.uint(), d.uint()
	r.ranges, r.records = d.ranges(), d.records()
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
	var e enc
	e.byte(recDeleteSnapshot)
	e.uint(r.id)
	e.records(r.records)
	return e.b, nil
}

func (r *deleteSnapshotRecord) decode(d *dec) { r.id, r.records = d.uint(), d.records() }

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
	var e enc
	e.byte(recRecords)
	e.records(r.records)
	return e.b, nil
}

func (r *recordsRecord) decode(d *dec) { r.records = d.records() }

func (r *recordsRecord) apply(s *Store) error {
	s.putRecords(r.records)
	return nil
}
