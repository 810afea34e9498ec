package view

import (
	"context"
	"errors"

	"odx/backstore"
)

// recordPrefix is the prefix of the keys of all records of views.
const recordPrefix = "view/"

func recordKey(view, what string) []byte { return []byte(recordPrefix + view + "/" + what) }

// Identity returns the identity stored by SetIdentity for a view, or "".
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

// SetIdentity stores, durably, the identity of the device below a view with records, so
// that the records are not used for another device.
func SetIdentity(ctx context.Context, r Records, view, over string) error {
	if err := r.PutRecords(ctx, backstore.Record{Key: recordKey(view, "over"), Value: []byte(over)}); err != nil {
		return err
	}
	return r.Flush(ctx)
}

// Known reports whether there are records of a view.
func Known(r Records, view string) (bool, error) {
	found := errors.New("found")
	switch err := r.ScanRecords(recordKey(view, ""), func(_, _ []byte) error { return found }); {
	case errors.Is(err, found):
		return true, nil
	default:
		return false, err
	}
}

// Forget deletes the records of a view.
func Forget(ctx context.Context, r Records, view string) error {
	var recs []backstore.Record
	err := r.ScanRecords(recordKey(view, ""), func(key, _ []byte) error {
		recs = append(recs, backstore.Record{Key: append([]byte(nil), key...)})
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
	for len(recs) > 0 { // the maximum of a journal record
		n := min(len(recs), 1000)
		if err := r.PutRecords(ctx, recs[:n]...); err != nil {
			return err
		}
		recs = recs[n:]
	}
	return r.Flush(ctx)
}
