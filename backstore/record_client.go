package backstore

import "odx/backstore/codec"

// encodeClient appends records of clients.
func encodeClient(e *codec.Encoder, r []Record) {
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
func decodeClient(d *codec.Decoder) []Record {
	recs := make([]Record, 0, d.Count(2))
	for range cap(recs) {
		r := Record{Key: d.Bytes()}
		if d.Byte() != 0 {
			r.Value = d.Bytes()
		}
		recs = append(recs, r)
	}
	return recs
}
