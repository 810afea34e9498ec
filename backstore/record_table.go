package backstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"odx/backstore/damage"
	"odx/backstore/rows"
)

// recordTable has the records that the rows of the last checkpoint do not have yet.
type recordTable struct {
	parts  *parts
	opts   *Options
	life   *life
	damage *damage.Log

	mu      sync.Mutex        // guards the rest
	changed map[string][]byte // since the last cut; nil: deleted
	storing map[string][]byte // changed before the running checkpoint's cut
}

// put changes records in memory. mu is held.
func (t *recordTable) put(recs []Record) {
	for _, r := range recs {
		value := r.Value
		if value != nil {
			value = append([]byte{}, value...)
		}
		t.changed[string(r.Key)] = value
		if t.damage.Any() {
			t.damage.Settle(recordName(r.Key))
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

// lost notes records that are lost, and returns the error that says so.
func (t *recordTable) lost(keys [][]byte, err error) error {
	err = corrupt(err)
	for _, key := range keys {
		t.damage.Note(recordName(key), err)
	}
	return &LostRecordsError{keys, err}
}

// collect returns records in the order of keys, also those that can be read
// next to damage, which it returns with the keys of the lost ones. Damage to a record
// that was put again is none.
func (t *recordTable) collect(prefix []byte) (recs []Record, lost [][]byte, err error) {
	if t.life.closed.Load() {
		return nil, nil, ErrClosed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	found := make(map[string][]byte)
	err = t.parts.kv.Scan(rows.RecordKey(prefix), func(key, value []byte) error {
		found[string(key[1:])] = bytes.Clone(value)
		return nil
	})
	if err != nil && !metadataDamage(err) {
		return nil, nil, err
	}
	for _, layer := range []map[string][]byte{t.storing, t.changed} {
		for key, value := range layer {
			if bytes.HasPrefix([]byte(key), prefix) {
				found[key] = value
			}
		}
	}
	if err != nil && !t.opts.ReadOnly {
		if lost, err = t.missing(prefix, found, err); err != nil && len(lost) == 0 {
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

// missing returns the keys of the records that exist and were not found because of
// damage, and the damage: nil if there are none. mu is held.
func (t *recordTable) missing(prefix []byte, found map[string][]byte, why error) (lost [][]byte, err error) {
	err = t.parts.kv.Keys(rows.RecordKey(prefix), func(key []byte) error {
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
