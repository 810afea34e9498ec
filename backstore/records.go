package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"odx/backstore/meta"
	"odx/backstore/record"
	"odx/backstore/rows"
)

// PutRecords puts records in one atomic step. It is durable after a Flush; of a
// store that is open for reading alone they are in memory and end with it.
func (s *Store) PutRecords(ctx context.Context, recs ...Record) error {
	if err := checkRecords(recs); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		s.records.mu.Lock()
		defer s.records.mu.Unlock()
		s.records.put(recs)
		return nil
	}
	op, err := s.begin(ctx, &record.PutClients{Records: recs})
	if err != nil {
		return err
	}
	defer op.End()
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	s.records.put(recs)
	op.Commit()
	return nil
}

// checkRecords refuses records that the metadata engine could not store: a
// checkpoint would fail on them for ever.
func checkRecords(recs []Record) error {
	for _, r := range recs {
		if len(r.Key) >= meta.MaxKey || len(r.Value) > meta.MaxValue {
			return fmt.Errorf("%w: record with a key of %d and a value of %d bytes", ErrInvalid, len(r.Key), len(r.Value))
		}
	}
	return nil
}

// GetRecord returns the caller's own copy of a record's value, or ErrNotFound, or a
// *LostRecordsError. A store that is open for reading alone does not have what is damaged:
// Damage lists it.
func (s *Store) GetRecord(key []byte) ([]byte, error) {
	if s.life.closed.Load() {
		return nil, ErrClosed
	}
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	for _, layer := range []map[string][]byte{s.records.changed, s.records.storing} {
		if value, ok := layer[string(key)]; ok {
			if value == nil {
				return nil, fmt.Errorf("record %q: %w", key, ErrNotFound)
			}
			return bytes.Clone(value), nil
		}
	}
	value, err := s.parts.kv.Get(rows.RecordKey(key))
	if metadataDamage(err) && s.life.tolerate(recordName(key), err) == nil {
		err = meta.ErrNotFound
	}
	if errors.Is(err, meta.ErrNotFound) {
		return nil, fmt.Errorf("record %q: %w", key, ErrNotFound)
	}
	if metadataDamage(err) {
		return nil, s.records.lost([][]byte{bytes.Clone(key)}, err)
	}
	return value, err
}

// ScanRecords calls fn with each record whose key begins with prefix, in the
// order of keys, as they were at one point in time. fn may keep key and value. An error
// of fn ends it. If records are damaged, fn gets all others, and the error is then a
// *LostRecordsError. A store that is open for reading alone leaves out what is damaged.
func (s *Store) ScanRecords(prefix []byte, fn func(key, value []byte) error) error {
	recs, lost, err := s.records.collect(prefix)
	if metadataDamage(err) {
		err = s.life.tolerate("records", err)
		if err != nil && len(lost) > 0 {
			err = s.records.lost(lost, err)
		}
	}
	var some *LostRecordsError
	if err != nil && !errors.As(err, &some) {
		return corrupt(err)
	}
	for _, r := range recs {
		if err := fn(r.Key, r.Value); err != nil {
			return err
		}
	}
	return err
}
