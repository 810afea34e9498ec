package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"odx/backstore"
)

// UnitRecords stores what a logical unit saves. The keys contain the unit's identity,
// which stays with the data, whatever the configuration calls it.
type UnitRecords struct {
	store  *backstore.Store
	prefix string
}

// NewUnitRecords returns the records of the logical unit with an identity.
func NewUnitRecords(store *backstore.Store, id [16]byte) UnitRecords {
	return UnitRecords{store, fmt.Sprintf("unit/%x/", id)}
}

// Load returns what was saved under a key; nil if nothing was.
func (r UnitRecords) Load(key string) ([]byte, error) {
	value, err := r.store.GetRecord([]byte(r.prefix + key))
	if errors.Is(err, backstore.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

// Save stores a value under a key, durably; nil removes it.
func (r UnitRecords) Save(ctx context.Context, key string, value []byte) error {
	if err := r.store.PutRecords(ctx, backstore.Record{Key: []byte(r.prefix + key), Value: value}); err != nil {
		return err
	}
	return r.store.Flush(ctx)
}

// EraID names an era of a server: the time from one loss of power to the next.
type EraID [16]byte

// EraRecords stores what a logical unit keeps for an era: it outlives the process, and no
// loss of power. A value of another era counts as absent.
type EraRecords struct {
	records UnitRecords
	era     EraID
}

// InEra returns the records of the same logical unit for an era.
func (r UnitRecords) InEra(era EraID) EraRecords {
	return EraRecords{UnitRecords{r.store, r.prefix + "era/"}, era}
}

// Load returns what was saved under a key in this era; nil if nothing was.
func (r EraRecords) Load(key string) ([]byte, error) {
	value, err := r.records.Load(key)
	if err != nil {
		return nil, err
	}
	value, ok := bytes.CutPrefix(value, r.era[:])
	if !ok {
		return nil, nil
	}
	return value, nil
}

// Save stores a value under a key; nil removes it. It survives the end of the process when
// Save returns.
func (r EraRecords) Save(ctx context.Context, key string, value []byte) error {
	if value != nil {
		value = append(r.era[:], value...)
	}
	store := r.records.store
	if err := store.PutRecords(ctx, backstore.Record{Key: []byte(r.records.prefix + key), Value: value}); err != nil {
		return err
	}
	return store.WriteOut(ctx)
}

// forgetOwnUnit deletes the records of the logical unit on a medium with an identity, unless
// the configuration has given that identity to a LUN on another medium.
func (s *Store) forgetOwnUnit(ctx context.Context, id [16]byte) error {
	for _, cfg := range s.using.configurations() {
		for _, t := range cfg.Targets {
			for i := range t.LUNs {
				if t.LUNs[i].Identity == s.store.Identify(id) {
					return nil
				}
			}
		}
	}
	return forgetUnit(ctx, s.store, id)
}

// forgetUnit deletes the records of a logical unit.
func forgetUnit(ctx context.Context, store *backstore.Store, id [16]byte) error {
	var recs []backstore.Record
	err := store.ScanRecords([]byte(NewUnitRecords(store, id).prefix), func(key, _ []byte) error {
		recs = append(recs, backstore.Record{Key: key})
		return nil
	})
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		for _, key := range lost.Keys {
			recs = append(recs, backstore.Record{Key: key})
		}
	} else if err != nil {
		return err
	}
	if len(recs) == 0 {
		return nil
	}
	return store.PutRecords(ctx, recs...)
}

// FileUnitID is the identity of the logical unit on a file. It depends on the file's
// name, because a file that is replaced by a rebuilt one, compacted for instance, is
// the same disk.
func FileUnitID(store *backstore.Store, name string) [16]byte {
	h := sha256.New()
	id := store.HeaderID()
	h.Write(id[:])
	io.WriteString(h, "disk "+name)
	return [16]byte(h.Sum(nil))
}
