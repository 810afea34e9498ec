package known

import (
	"bytes"
	"encoding/binary"
	"errors"

	"odx/backstore/pages"
)

// maxStores is of how many stores names are kept; those of the one that was added first
// make room for another one.
const maxStores = 256

// stores is the row of the other stores.
type stores struct {
	pages.Header
	last  uint16 // number given out last; a number is not used again
	names int64  // on all pages
	list  []store
}

// store is one of them, in the order in which they were added.
type store struct {
	number uint16
	id     [16]byte
}

// Encode returns the row: format (a byte, 1), the last number (2 bytes), the number of
// names (8 bytes), then number (2) and identity (16) of each store.
func (s *stores) Encode() []byte {
	if s.last == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint16([]byte{rowFormat}, s.last)
	b = binary.BigEndian.AppendUint64(b, uint64(s.names))
	for _, one := range s.list {
		b = binary.BigEndian.AppendUint16(b, one.number)
		b = append(b, one.id[:]...)
	}
	return b
}

var errStores = errors.New("row of known stores: invalid length or number")

func decodeStores(b []byte) (*stores, error) {
	s := &stores{}
	if len(b) == 0 {
		return s, nil
	}
	if b[0] != rowFormat || len(b) < 11 || (len(b)-11)%18 != 0 {
		return nil, errStores
	}
	s.last, s.names = binary.BigEndian.Uint16(b[1:]), int64(binary.BigEndian.Uint64(b[3:]))
	for b = b[11:]; len(b) > 0; b = b[18:] {
		one := store{number: binary.BigEndian.Uint16(b), id: [16]byte(b[2:18])}
		if one.number == 0 || one.number > s.last || s.names < 0 {
			return nil, errStores
		}
		s.list = append(s.list, one)
	}
	return s, nil
}

// find returns the number of a store, 0 if it has none.
func (s *stores) find(id [16]byte) uint16 {
	for _, one := range s.list {
		if bytes.Equal(one.id[:], id[:]) {
			return one.number
		}
	}
	return 0
}

// add gives a store a number, 0 if there is none left.
func (s *stores) add(id [16]byte) uint16 {
	if s.last == ^uint16(0) {
		return 0
	}
	s.last++
	if len(s.list) >= maxStores {
		s.list = append([]store(nil), s.list[1:]...)
	}
	s.list = append(s.list, store{number: s.last, id: id})
	return s.last
}
