package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

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
		s.recordMu.Lock()
		defer s.recordMu.Unlock()
		s.putRecords(recs)
		return nil
	}
	op, err := s.begin(ctx, &record.PutClients{Records: recs})
	if err != nil {
		return err
	}
	defer op.End()
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	s.putRecords(recs)
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

// putRecords changes records in memory. recordMu is held.
func (s *Store) putRecords(recs []Record) {
	for _, r := range recs {
		value := r.Value
		if value != nil {
			value = append([]byte{}, value...)
		}
		s.records[string(r.Key)] = value
		if s.damage.Any() {
			s.damage.Settle(recordName(r.Key))
		}
	}
}

// LostRecordsError reports records that are damaged in every copy. All others were read.
// It wraps ErrCorrupt.
type LostRecordsError struct {
	Keys [][]byte // in order
	Err  error
}

func (e *LostRecordsError) Error() string {
	return fmt.Sprintf("%v; odx store repair makes a store without what is lost, and says what that is", e.Err)
}

// Unwrap returns the cause.
func (e *LostRecordsError) Unwrap() error { return e.Err }

// recordName is what Damage calls a record.
func recordName(key []byte) string { return fmt.Sprintf("record %q", key) }

// lostRecords notes records that are lost, and returns the error that says so.
func (s *Store) lostRecords(keys [][]byte, err error) error {
	err = corrupt(err)
	for _, key := range keys {
		s.damage.Note(recordName(key), err)
	}
	return &LostRecordsError{keys, err}
}

// GetRecord returns the caller's own copy of a record's value, or ErrNotFound, or a
// *LostRecordsError. A store that is open for reading alone does not have what is damaged:
// Damage lists it.
func (s *Store) GetRecord(key []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	for _, layer := range []map[string][]byte{s.records, s.storing} {
		if value, ok := layer[string(key)]; ok {
			if value == nil {
				return nil, fmt.Errorf("record %q: %w", key, ErrNotFound)
			}
			return bytes.Clone(value), nil
		}
	}
	value, err := s.kv.Get(rows.RecordKey(key))
	if metadataDamage(err) && s.tolerate(recordName(key), err) == nil {
		err = meta.ErrNotFound
	}
	if errors.Is(err, meta.ErrNotFound) {
		return nil, fmt.Errorf("record %q: %w", key, ErrNotFound)
	}
	if metadataDamage(err) {
		return nil, s.lostRecords([][]byte{bytes.Clone(key)}, err)
	}
	return value, err
}

// ScanRecords calls fn with each record whose key begins with prefix, in the
// order of keys, as they were at one point in time. An error of fn ends it. If records
// are damaged, fn gets all others, and the error is then a *LostRecordsError. A store
// that is open for reading alone leaves out what is damaged.
func (s *Store) ScanRecords(prefix []byte, fn func(key, value []byte) error) error {
	recs, lost, err := s.collectRecords(prefix)
	if metadataDamage(err) {
		err = s.tolerate("records", err)
		if err != nil && len(lost) > 0 {
			err = s.lostRecords(lost, err)
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

// collectRecords returns records in the order of keys, also those that can be read
// next to damage, which it returns with the keys of the lost ones. Damage to a record
// that was put again is none.
func (s *Store) collectRecords(prefix []byte) (recs []Record, lost [][]byte, err error) {
	if s.closed.Load() {
		return nil, nil, ErrClosed
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	found := make(map[string][]byte)
	err = s.kv.Scan(rows.RecordKey(prefix), func(key, value []byte) error {
		found[string(key[1:])] = bytes.Clone(value)
		return nil
	})
	if err != nil && !metadataDamage(err) {
		return nil, nil, err
	}
	for _, layer := range []map[string][]byte{s.storing, s.records} {
		for key, value := range layer {
			if bytes.HasPrefix([]byte(key), prefix) {
				found[key] = value
			}
		}
	}
	if err != nil && !s.opts.ReadOnly {
		if lost, err = s.missingRecords(prefix, found, err); err != nil && len(lost) == 0 {
			return nil, nil, err
		}
	}
	recs = make([]Record, 0, len(found))
	for key, value := range found {
		if value != nil {
			recs = append(recs, Record{Key: []byte(key), Value: bytes.Clone(value)})
		}
	}
	slices.SortFunc(recs, func(a, b Record) int { return bytes.Compare(a.Key, b.Key) })
	return recs, lost, err
}

// missingRecords returns the keys of the records that exist and were not found because of
// damage, and the damage: nil if there are none. recordMu is held.
func (s *Store) missingRecords(prefix []byte, found map[string][]byte, why error) (lost [][]byte, err error) {
	err = s.kv.Keys(rows.RecordKey(prefix), func(key []byte) error {
		if _, ok := found[string(key[1:])]; !ok {
			lost = append(lost, key[1:])
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(why, err)
	}
	if len(lost) == 0 {
		return nil, nil
	}
	return lost, why
}
