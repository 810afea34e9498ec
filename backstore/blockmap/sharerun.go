package blockmap

import (
	"odx/backstore/extent"
)

// shareRun is shareInto for nodes of a level that stand side by side on both
// sides: up to most of them, as many as are below one node and no holes, with
// one way down either tree. It returns how many it did, at least one.
func (f *Forest) shareRun(dst *Root, to uint64, src Root, from uint64, level uint8, most int) (int, error) {
	if level == dst.Level || level == src.Level {
		return 1, f.shareInto(dst, to, src, from, level)
	}
	above, err := f.nodeAt(src, from, level+1)
	if err != nil {
		return 0, err
	}
	n, at := 0, index(to, level+1)
	if above != nil {
		first := above.slots[index(from, level+1):]
		for most = min(most, len(first), Fanout-at); n < most && first[n] != 0; n++ {
		}
	}
	if n < 2 {
		return 1, f.shareInto(dst, to, src, from, level)
	}
	scratch := f.scratch.Get().(*[Fanout]extent.Slot)
	defer f.putScratch(scratch)
	nodes := scratch[:n]
	copy(nodes, above.slots[index(from, level+1):])
	if err := f.addRefs(nodes); err != nil {
		return 0, err
	}
	parent, err := f.own(dst, to, level+1)
	if err != nil {
		return 0, err
	}
	if parent, err = f.nodes.Lock(parent.ID()); err != nil {
		return 0, err
	}
	f.nodes.Change(parent)
	for i, child := range nodes {
		nodes[i], parent.slots[at+i] = parent.slots[at+i], child
	}
	parent.Unlock()
	return n, f.releaseAll(nodes)
}

// addRefs adds a reference to each of the nodes.
func (f *Forest) addRefs(nodes []extent.Slot) error {
	return f.eachCount(nodes, func(p *countPage, id uint64) {
		f.proveNotDropped(id)
		p.extra[id%Fanout]++
	})
}

// releaseAll takes a reference from each of the nodes, holes among them; those
// that lose their last one are dropped.
func (f *Forest) releaseAll(nodes []extent.Slot) error {
	last := nodes[:0] // what is behind has been looked at
	err := f.eachCount(nodes, func(p *countPage, id uint64) {
		if p.extra[id%Fanout] == 0 {
			last = append(last, extent.Slot(id))
			return
		}
		p.extra[id%Fanout]--
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
// of counts, which is locked and counts as changed. Nodes that were made
// together have theirs on one page.
func (f *Forest) eachCount(nodes []extent.Slot, fn func(p *countPage, id uint64)) error {
	for i := 0; i < len(nodes); {
		if nodes[i] == 0 {
			i++
			continue
		}
		page := uint64(nodes[i]) / Fanout
		p, err := f.counts.Lock(page)
		if err != nil {
			return err
		}
		f.counts.Change(p)
		for ; i < len(nodes) && nodes[i] != 0 && uint64(nodes[i])/Fanout == page; i++ {
			fn(p, uint64(nodes[i]))
		}
		p.Unlock()
	}
	return nil
}
