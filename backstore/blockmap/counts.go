package blockmap

import (
	"odx/backstore/extent"
	"odx/backstore/invariant"
	"odx/backstore/refs"
)

// countKind: a new node has one reference; a node without references is dropped.
var countKind = refs.Kind{Prefix: CountPrefix, Least: 0}

// addRef adds a reference to a node.
func (f *Forest) addRef(id uint64) error {
	f.checkNotDropped(id)
	p, err := f.counts.Lock(id)
	if err != nil {
		return err
	}
	f.counts.Change(p)
	p.Add(id, 1)
	p.Unlock()
	return nil
}

// dropRef removes a reference from a node. last reports that it was the only one; the
// count is then unchanged.
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

// addRefs adds a reference to each of the nodes. It skips holes.
func (f *Forest) addRefs(nodes []extent.Slot) error {
	if invariant.Enabled {
		for _, id := range nodes {
			f.checkNotDropped(uint64(id))
		}
	}
	return f.eachCounts(nodes, func(p *refs.Page, nodes []extent.Slot) int {
		f.counts.Change(p)
		return refs.AddEach(p, nodes, 0, 1)
	})
}

// releaseAll removes a reference from each of the nodes, and drops nodes that lose
// their last one. It skips holes and overwrites nodes.
func (f *Forest) releaseAll(nodes []extent.Slot) error {
	last := nodes[:0] // reuses the prefix that is already processed
	err := f.eachCounts(nodes, func(p *refs.Page, nodes []extent.Slot) int {
		n := 0
		for n < len(nodes) && p.Has(uint64(nodes[n])) {
			if p.Extra(uint64(nodes[n])) == 0 {
				last = append(last, nodes[n])
				n++
			} else {
				f.counts.Change(p)
				n += refs.TakeEach(p, nodes[n:], 0)
			}
			for n < len(nodes) && nodes[n] == 0 {
				n++
			}
		}
		return n
	})
	if err != nil {
		return err
	}
	for _, id := range last {
		f.drop(uint64(id))
	}
	return nil
}

// touchCounts reads the counts of nodes. It skips holes.
func (f *Forest) touchCounts(nodes []extent.Slot) error {
	return f.eachCounts(nodes, func(p *refs.Page, nodes []extent.Slot) int { return refs.Lead(p, nodes, 0) })
}

// eachCounts calls fn with the rest of nodes, starting at a node that is not a hole,
// and with the locked page of its count. fn returns the number of leading nodes it has
// processed: those with counts on the page. Nodes created together have counts on one
// page, so calls are few.
func (f *Forest) eachCounts(nodes []extent.Slot, fn func(p *refs.Page, nodes []extent.Slot) int) error {
	for len(nodes) > 0 {
		if nodes[0] == 0 {
			nodes = nodes[1:]
			continue
		}
		p, err := f.counts.Lock(uint64(nodes[0]))
		if err != nil {
			return err
		}
		n := fn(p, nodes)
		p.Unlock()
		nodes = nodes[n:]
	}
	return nil
}
