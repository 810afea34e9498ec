package record

import (
	"fmt"

	"odx/backstore/codec"
)

// Client is a small value that a client of the store keeps in addition to its volumes, in one
// order with them; a nil Value deletes the key. Clients own the key space (first bytes
// of a key say whose it is).
type Client struct {
	Key, Value []byte
}

// encodeClient appends records of clients.
func encodeClient(e *codec.Encoder, r []Client) {
	e.Uint(uint64(len(r)))
	for _, rec := range r {
		e.Bytes(rec.Key)
		if rec.Value == nil {
			e.Byte(0)
			continue
		}
		e.Byte(1)
		e.Bytes(rec.Value)
	}
}

// decodeClient reads records of clients.
func decodeClient(d *codec.Decoder) []Client {
	recs := make([]Client, 0, d.Count(2))
	for range cap(recs) {
		r := Client{Key: d.Bytes()}
		if d.Byte() != 0 {
			r.Value = d.Bytes()
		}
		recs = append(recs, r)
	}
	return recs
}

// describeClient returns what records of clients say, for people.
func describeClient(recs []Client) []any {
	all := []any{}
	for _, r := range recs {
		one := map[string]any{"key": fmt.Sprintf("%q", r.Key), "deleted": r.Value == nil}
		if r.Value != nil {
			one["value"] = fmt.Sprintf("%q", r.Value)
		}
		all = append(all, one)
	}
	return all
}
