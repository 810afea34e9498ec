package blockmap

import (
	"odx/backstore/extent"
	"odx/backstore/refs"
)

// countKind: a new node has one reference, and one without any is dropped.
var countKind = refs.Kind{Prefix: countPrefix, Least: 0}

// addRef adds a reference to a node.
func (f *Forest) addRef(id uint64) error {
	f.proveNotDropped(id)
	p, err := f.counts.Lock(id)
	if err != nil {
		return err
	}
	f.counts.Change(p)
	p.Add(id, 1)
	p.Unlock()
	return nil
}

// dropRef takes a reference from a node; last reports that it was the only one.
func (f *Forest) dropRef(id uint64) (last bool, err error) {
	p, err := f.counts.Lock(id)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	if p.Extra(id) == 0 {
		return true, nil
	}
	f.counts.Change(p)
	p.Add(id, -1)
	return false, nil
}

// references returns how many references a node has.
func (f *Forest) references(id uint64) (int64, error) {
	extra, err := f.counts.Extra(id)
	return 1 + extra, err
}

// addRefs adds a reference to each of the nodes, holes among them.
func (f *Forest) addRefs(nodes []extent.Slot) error {
	return f.eachCount(nodes, func(p *refs.Page, id uint64) {
		f.proveNotDropped(id)
		f.counts.Change(p)
		p.Add(id, 1)
	})
}

// releaseAll takes a reference from each of the nodes, holes among them; those
// that lose their last one are dropped.
func (f *Forest) releaseAll(nodes []extent.Slot) error {
	last := nodes[:0] // what is behind has been looked at
	err := f.eachCount(nodes, func(p *refs.Page, id uint64) {
		if p.Extra(id) == 0 {
			last = append(last, extent.Slot(id))
			return
		}
		f.counts.Change(p)
		p.Add(id, -1)
	})
	if err != nil {
		return err
	}
	for _, id := range last {
		f.drop(uint64(id))
	}
	return nil
}

// eachCount calls fn with each of the nodes that is no hole, and with its page
// of counts, which is locked. Nodes that were made together have theirs on one
// page.
func (f *Forest) eachCount(nodes []extent.Slot, fn func(p *refs.Page, id uint64)) error {
	for i := 0; i < len(nodes); {
		if nodes[i] == 0 {
			i++
			continue
		}
		p, err := f.counts.Lock(uint64(nodes[i]))
		if err != nil {
			return err
		}
		for ; i < len(nodes) && nodes[i] != 0 && p.Has(uint64(nodes[i])); i++ {
			fn(p, uint64(nodes[i]))
		}
		p.Unlock()
	}
	return nil
}
