package target

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"odx/backstore"
)

// recordPart is the size up to which one record of the store has a text; the store bounds
// its records.
const recordPart = 256 << 10

// readParts returns a text that writeParts has stored. Errors are those of
// backstore.Store.GetRecord, also for a part.
func readParts(store *backstore.Store, key string) ([]byte, error) {
	text, err := store.GetRecord([]byte(key))
	for n := 1; err == nil; n++ {
		var part []byte
		if part, err = store.GetRecord(partKey(key, n)); err == nil {
			text = append(text, part...)
		}
		if errors.Is(err, backstore.ErrNotFound) {
			return text, nil
		}
	}
	return nil, err
}

// partKey is the key of a part but the first, which has the key of the text.
func partKey(key string, n int) []byte { return fmt.Appendf(nil, "%s/%d", key, n) }

// writeParts stores a text in as many records as it needs, all of them or none.
func writeParts(ctx context.Context, store *backstore.Store, key string, text []byte) error {
	records := []backstore.Record{{Key: []byte(key), Value: text[:min(len(text), recordPart)]}}
	n := 1
	for rest := text[len(records[0].Value):]; len(rest) > 0; n++ {
		part := rest[:min(len(rest), recordPart)]
		records, rest = append(records, backstore.Record{Key: partKey(key, n), Value: part}), rest[len(part):]
	}
	gone := func(old, _ []byte) error {
		if part, err := strconv.Atoi(strings.TrimPrefix(string(old), key+"/")); err == nil && part >= n {
			records = append(records, backstore.Record{Key: old})
		}
		return nil
	}
	err := store.ScanRecords([]byte(key+"/"), gone)
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		err = nil
		for _, old := range lost.Keys {
			err = errors.Join(err, gone(old, nil))
		}
	}
	if err != nil {
		return err
	}
	return store.PutRecords(ctx, records...)
}
