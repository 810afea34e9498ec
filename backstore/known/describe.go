package known

import (
	"fmt"

	"odx/backstore/extent"
)

// Describe returns the contents of a row of this package in readable form. ok is false for
// rows of other packages.
func Describe(key, value []byte) (described any, ok bool, err error) {
	if len(key) != 9 {
		return nil, false, nil
	}
	switch key[0] {
	case PagePrefix:
		id, _ := pageOfKey(key)
		p, err := decodePage(value)
		if err != nil {
			return nil, true, err
		}
		return p.describe(uint16(id>>(64-numberBits)), id<<numberBits>>numberBits<<pageShift), true, nil
	case StoresPrefix:
		s, err := decodeStores(value)
		if err != nil {
			return nil, true, err
		}
		list := []map[string]any{}
		for _, one := range s.list {
			list = append(list, map[string]any{"number": one.number, "id": fmt.Sprintf("%x", one.id)})
		}
		return map[string]any{"names": s.names, "last": s.last, "stores": list}, true, nil
	}
	return nil, false, nil
}

// describe returns the runs of names whose slots are consecutive, there and here.
func (p *page) describe(number uint16, first uint64) any {
	runs := []map[string]any{}
	for at := 0; at < pageSlots; {
		n := 1
		if p.local[at] == 0 {
			at++
			continue
		}
		for at+n < pageSlots && p.local[at+n] == p.local[at]+extent.Slot(n) && p.index[at+n] == p.index[at] {
			n++
		}
		runs = append(runs, map[string]any{
			"series": fmt.Sprintf("%016x", p.series[p.index[at]]), "slot": first + uint64(at), "count": n, "local": uint64(p.local[at]),
		})
		at += n
	}
	return map[string]any{"store": number, "names": runs}
}
