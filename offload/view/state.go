package view

import (
	"context"
	"errors"

	"odx/backstore"
)

// recordPrefix begins the key of every record of a view.
const recordPrefix = "view/"

func recordKey(view, what string) []byte { return []byte(recordPrefix + view + "/" + what) }

// Identity returns what SetIdentity has stored for a view; empty when nothing was.
func Identity(r Records, view string) (string, error) {
	value, err := r.GetRecord(recordKey(view, "over"))
	return string(value), ignoreNotFound(err)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, backstore.ErrNotFound) {
		return nil
	}
	return err
}

// SetIdentity stores, durably, what a view that remembers things is over, so that
// they are not taken for those of something else.
func SetIdentity(ctx context.Context, r Records, view, over string) error {
	if err := r.PutRecords(ctx, backstore.Record{Key: recordKey(view, "over"), Value: []byte(over)}); err != nil {
		return err
	}
	return r.Flush(ctx)
}

// Forget removes what is stored for a view.
func Forget(ctx context.Context, r Records, view string) error {
	var gone []backstore.Record
	err := r.ScanRecords(recordKey(view, ""), func(key, _ []byte) error {
		gone = append(gone, backstore.Record{Key: append([]byte(nil), key...)})
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	for len(gone) > 0 { // a record of the store's journal holds so many
		n := min(len(gone), 1000)
		if err := r.PutRecords(ctx, gone[:n]...); err != nil {
			return err
		}
		gone = gone[n:]
	}
	return r.Flush(ctx)
}
