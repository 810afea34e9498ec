package blockmap

import (
	"encoding/binary"
	"errors"

	"odx/backstore/pages"
)

// countPage holds the references of consecutive nodes beyond the first. Most
// nodes have exactly one, so most pages hold only zeros and are not stored.
type countPage struct {
	pages.Header
	extra [Fanout]uint32
}

// countPageBytes is about the memory of one cached count page.
const countPageBytes = Fanout*4 + 128

// Encode returns pairs of uvarints: slots skipped since the last pair, extra
// references. It is nil when every node has one reference.
func (p *countPage) Encode() []byte {
	var b []byte
	next := 0
	for i, extra := range p.extra {
		if extra == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i-next))
		b = binary.AppendUvarint(b, uint64(extra))
		next = i + 1
	}
	return b
}

var errBadCounts = errors.New("node count page is malformed")

func decodeCounts(b []byte) (*countPage, error) {
	p := &countPage{}
	next := uint64(0)
	for len(b) > 0 {
		skip, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errBadCounts
		}
		b = b[n:]
		extra, n := binary.Uvarint(b)
		if n <= 0 || skip >= Fanout || next+skip >= Fanout || extra == 0 || extra > 1<<32-1 {
			return nil, errBadCounts
		}
		b = b[n:]
		p.extra[next+skip] = uint32(extra)
		next += skip + 1
	}
	return p, nil
}

// addRef adds a reference to a node.
func (f *Forest) addRef(id uint64) error {
	f.proveNotDropped(id)
	p, err := f.counts.Lock(id / Fanout)
	if err != nil {
		return err
	}
	f.counts.Change(p)
	p.extra[id%Fanout]++
	p.Unlock()
	return nil
}

// dropRef takes a reference from a node; last reports that it was the only one.
func (f *Forest) dropRef(id uint64) (last bool, err error) {
	p, err := f.counts.Lock(id / Fanout)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	if p.extra[id%Fanout] == 0 {
		return true, nil
	}
	f.counts.Change(p)
	p.extra[id%Fanout]--
	return false, nil
}

// shared reports whether a node has more than one reference.
func (f *Forest) shared(id uint64) (bool, error) {
	p, err := f.counts.Lock(id / Fanout)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	return p.extra[id%Fanout] != 0, nil
}
