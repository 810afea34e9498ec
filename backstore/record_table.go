package backstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	newer := t.newer(prefix)
	err = t.parts.kv.Scan(rows.RecordKey(prefix), func(key, value []byte) error {
		if _, ok := newer[string(key[1:])]; !ok {
			recs = append(recs, Record{Key: bytes.Clone(key[1:]), Value: bytes.Clone(value)})
		}
		return nil
	})
	if err != nil && !metadataDamage(err) {
		return nil, nil, err
	}
	if err != nil && !t.opts.ReadOnly {
		if lost, err = t.missing(prefix, newer, recs, err); err != nil && len(lost) == 0 {
			return nil, nil, err
		}
	}
	for key, value := range newer {
		if value != nil {
			recs = append(recs, Record{Key: []byte(key), Value: bytes.Clone(value)})
		}
	}
	slices.SortFunc(recs, func(a, b Record) int { return bytes.Compare(a.Key, b.Key) })
	return recs, lost, err
}

// newer returns the records with a prefix that the rows do not have yet; nil: deleted.
// mu is held.
func (t *recordTable) newer(prefix []byte) map[string][]byte {
	found := make(map[string][]byte)
	for _, layer := range []map[string][]byte{t.storing, t.changed} {
		for key, value := range layer {
			if strings.HasPrefix(key, string(prefix)) {
				found[key] = value
			}
		}
	}
	return found
}

// missing returns the keys of the records that exist and were not found because of
// damage, and the damage: nil if there are none. The records that were read are in the
// order of keys. mu is held.
func (t *recordTable) missing(prefix []byte, newer map[string][]byte, read []Record, why error) (lost [][]byte, err error) {
	err = t.parts.kv.Keys(rows.RecordKey(prefix), func(key []byte) error {
		_, ok := newer[string(key[1:])]
		if !ok {
			_, ok = slices.BinarySearchFunc(read, key[1:], func(r Record, key []byte) int { return bytes.Compare(r.Key, key) })
		}
		if !ok {
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
