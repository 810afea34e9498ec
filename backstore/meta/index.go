package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sort"
)

// The index of a run lists its tables and their keys: it shows alone that a key does
// not exist, and which rows were in a lost table. For each table:
//
//	uvarint length of the table (0: it has no rows), CRC-32C of it (4 bytes),
//	uvarint number of keys, uvarint length of what follows; for each key
//	uvarint bytes that it shares with the one before, uvarint bytes of its own
//	times 2 plus 1 for a deletion, its own bytes.
//
// Deletions have no row in the table.

var errIndex = errors.New("index of metadata rows is malformed")

// tableRef is the index entry of a table.
type tableRef struct {
	off    int64
	length uint32
	crc    uint32
	keys   []byte // as in the index
	first  []byte // the first of the keys
	live   int    // rows of the table
}

// keyList encodes the keys of one table.
type keyList struct {
	b     []byte
	last  []byte
	count int
}

func (l *keyList) add(key []byte, deleted bool) {
	shared := 0
	for l.count > 0 && shared < min(len(key), len(l.last)) && key[shared] == l.last[shared] {
		shared++
	}
	own := uint64(len(key)-shared) << 1
	if deleted {
		own |= 1
	}
	l.b = binary.AppendUvarint(l.b, uint64(shared))
	l.b = binary.AppendUvarint(l.b, own)
	l.b = append(l.b, key[shared:]...)
	l.last = append(l.last[:0], key...)
	l.count++
}

// appendTo appends the index entry of a table to dst and starts the next list. It keeps
// the last key.
func (l *keyList) appendTo(dst []byte, length int, crc uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(length))
	dst = binary.BigEndian.AppendUint32(dst, crc)
	dst = binary.AppendUvarint(dst, uint64(l.count))
	dst = binary.AppendUvarint(dst, uint64(len(l.b)))
	dst = append(dst, l.b...)
	l.b, l.count = l.b[:0], 0
	return dst
}

// keyReader reads an encoded list of keys.
type keyReader struct {
	rest    []byte
	key     []byte // valid until the next call of next
	deleted bool
	live    int // number of preceding keys with a row
	began   bool
}

// next advances to the next key, and returns false at the end. decodeIndex has
// validated the list.
func (k *keyReader) next() bool {
	if k.began && !k.deleted {
		k.live++
	}
	k.began = true
	if len(k.rest) == 0 {
		return false
	}
	shared, n := binary.Uvarint(k.rest)
	if n <= 0 || shared > uint64(len(k.key)) {
		return false
	}
	own, m := binary.Uvarint(k.rest[n:])
	if m <= 0 || own>>1 > uint64(len(k.rest)-n-m) {
		return false
	}
	k.rest = k.rest[n+m:]
	k.deleted = own&1 != 0
	k.key = append(k.key[:shared], k.rest[:own>>1]...)
	k.rest = k.rest[own>>1:]
	return true
}

// decodeIndex returns the tables of an index, which are in bytes [off, end) of the
// file. They refer to b.
func decodeIndex(b []byte, off, end int64) ([]tableRef, error) {
	var refs []tableRef
	var last []byte
	for len(b) > 0 {
		length, n := binary.Uvarint(b)
		if n <= 0 || len(b) < n+4 || length > uint64(end-off) {
			return nil, errIndex
		}
		ref := tableRef{off: off, length: uint32(length), crc: binary.BigEndian.Uint32(b[n:])}
		b = b[n+4:]
		count, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errIndex
		}
		size, m := binary.Uvarint(b[n:])
		if m <= 0 || size > uint64(len(b)-n-m) {
			return nil, errIndex
		}
		ref.keys, b = b[n+m:n+m+int(size):n+m+int(size)], b[n+m+int(size):]
		var err error
		if last, err = ref.check(last, count); err != nil {
			return nil, err
		}
		off += int64(length)
		refs = append(refs, ref)
	}
	if off != end {
		return nil, errIndex
	}
	return refs, nil
}

// check validates the list of keys, which must all be above last, and returns its last
// key.
func (ref *tableRef) check(last []byte, count uint64) ([]byte, error) {
	k := keyReader{rest: ref.keys}
	n := uint64(0)
	for k.next() {
		if len(k.key) == 0 || len(k.key) > MaxKey || bytes.Compare(k.key, last) <= 0 {
			return nil, errIndex
		}
		if n == 0 {
			ref.first = bytes.Clone(k.key)
		}
		last = append(last[:0], k.key...)
		n++
	}
	ref.live = k.live
	if n == 0 || n != count || len(k.rest) != 0 || (ref.live == 0) != (ref.length == 0) {
		return nil, errIndex
	}
	return last, nil
}

// tableFor returns the only table that can have the key, or -1 if the key is below all
// tables.
func tableFor(refs []tableRef, key []byte) int {
	return sort.Search(len(refs), func(i int) bool { return bytes.Compare(refs[i].first, key) > 0 }) - 1
}

// find reports whether the table has the key, as its row at or as a deletion.
func (ref *tableRef) find(key []byte) (at int, deleted, ok bool) {
	k := keyReader{rest: ref.keys}
	for k.next() {
		switch bytes.Compare(k.key, key) {
		case 0:
			return k.live, k.deleted, true
		case 1:
			return 0, false, false
		}
	}
	return 0, false, false
}
