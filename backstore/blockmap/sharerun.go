package blockmap

import "odx/backstore/extent"

// shareRun is shareInto for up to most adjacent nodes of a level, with one descent of
// each tree. It stops at a hole and at the end of the parent node in either tree. It
// returns the number of nodes shared, at least one.
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
