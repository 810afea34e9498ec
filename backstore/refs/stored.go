package refs

import (
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/meta"
)

// ErrMalformed reports a damaged stored page.
var ErrMalformed = errors.New("page of reference counts is malformed")

// most bounds decoded counts. No store has so many slots, and counts that grow from it
// do not overflow.
const most = 1 << 56

// Encode returns the runs of equal nonzero counts: uvarints of the zeros before the run
// and of its length, and the count as a zigzag varint. It returns nil if all counts are
// zero.
func (p *Page) Encode() []byte {
	var b []byte
	end := 0 // of the last run
	for i := 0; i < PerPage; {
		extra, n := p.extra[i], 1
		for i+n < PerPage && p.extra[i+n] == extra {
			n++
		}
		if extra != 0 {
			b = binary.AppendUvarint(b, uint64(i-end))
			b = binary.AppendUvarint(b, uint64(n))
			b = binary.AppendVarint(b, extra)
			end = i + n
		}
		i += n
	}
	return b
}

func decode(least int64, b []byte) (*Page, error) {
	p := &Page{}
	for rest := p.extra[:]; len(b) > 0; {
		zeros, n := binary.Uvarint(b)
		if n <= 0 || zeros > uint64(len(rest)) {
			return nil, ErrMalformed
		}
		b, rest = b[n:], rest[zeros:]
		length, n := binary.Uvarint(b)
		if n <= 0 || length == 0 || length > uint64(len(rest)) {
			return nil, ErrMalformed
		}
		b = b[n:]
		extra, n := binary.Varint(b)
		if n <= 0 || extra == 0 || extra < least || extra > most {
			return nil, ErrMalformed
		}
		b = b[n:]
		for i := range rest[:length] {
			rest[i] = extra
		}
		rest = rest[length:]
	}
	return p, nil
}

// Scan calls fn with every stored page of a kind, in order: its first number, and its
// counts or the decoding error.
func Scan(kv meta.Reader, k Kind, fn func(first uint64, extra []int64, err error) error) error {
	return kv.Scan([]byte{k.Prefix}, func(key, value []byte) error {
		if len(key) != 9 {
			return fmt.Errorf("%w: key has %d bytes, want 9", ErrMalformed, len(key))
		}
		first := binary.BigEndian.Uint64(key[1:]) * PerPage
		p, err := decode(k.Least, value)
		if err != nil {
			return fn(first, nil, err)
		}
		return fn(first, p.extra[:], nil)
	})
}

// Read returns the stored page of a number.
func Read(kv meta.Reader, k Kind, number uint64) (*Page, error) {
	value, err := kv.Get(binary.BigEndian.AppendUint64([]byte{k.Prefix}, number/PerPage))
	if errors.Is(err, meta.ErrNotFound) {
		return &Page{}, nil
	}
	if err != nil {
		return nil, err
	}
	return decode(k.Least, value)
}
