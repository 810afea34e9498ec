package api

import (
	"encoding/json"
	"io"
)

// listEntry is about what an entry of a list holds until it is sent, in bytes.
const listEntry = 512

// list is an answer of many entries. They are converted and encoded one by one, because
// a list in JSON takes several times the memory of what it describes.
type list struct {
	n     int
	entry func(i int) any
}

// listV1 is asV1 for lists; convert converts one entry.
func listV1[T, W any](convert func(T) W) func([]T, error) (any, error) {
	return func(all []T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return list{len(all), func(i int) any { return convert(all[i]) }}, nil
	}
}

// bytes returns about what the list holds.
func (l list) bytes() int64 { return int64(l.n) * listEntry }

// encode writes the list as a JSON array. An error is that of w.
func (l list) encode(w io.Writer) error {
	encoder, separator := json.NewEncoder(w), "["
	for i := range l.n {
		if _, err := io.WriteString(w, separator); err != nil {
			return err
		}
		if err := encoder.Encode(l.entry(i)); err != nil {
			return err
		}
		separator = ","
	}
	if l.n == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	_, err := io.WriteString(w, "]\n")
	return err
}
