package target

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore"
)

// unitRecords keeps what a logical unit saves in the store. Its identity is part
// of the keys: it stays with the data, whatever the configuration calls it.
type unitRecords struct {
	store  *backstore.Store
	prefix string
}

func newUnitRecords(store *backstore.Store, id [16]byte) unitRecords {
	return unitRecords{store, fmt.Sprintf("unit/%x/", id)}
}

func (r unitRecords) Load(key string) ([]byte, error) {
	value, err := r.store.GetRecord([]byte(r.prefix + key))
	if errors.Is(err, backstore.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

func (r unitRecords) Save(ctx context.Context, key string, value []byte) error {
	if err := r.store.PutRecords(ctx, backstore.Record{Key: []byte(r.prefix + key), Value: value}); err != nil {
		return err
	}
	return r.store.Flush(ctx)
}

// forgetUnit removes what a logical unit has saved.
func forgetUnit(ctx context.Context, store *backstore.Store, id [16]byte) error {
	var gone []backstore.Record
	err := store.ScanRecords([]byte(newUnitRecords(store, id).prefix), func(key, _ []byte) error {
		gone = append(gone, backstore.Record{Key: key})
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	return store.PutRecords(ctx, gone...)
}
