package blockmap

import (
	"odx/backstore/extent"
	"odx/backstore/invariant"
)

// slotCost is what copying the slots of one leaf costs in comparison with
// sharing one node.
const slotCost = 8

// StepError: a step of a Copy could not read what it needs. The step changed
// nothing, and those before it are whole.
type StepError struct{ Err error }

func (e *StepError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Copy makes blocks [to, to+count) of dst equal blocks [from, from+count) of
// src. Where both lie alike to a node's span the node is shared, elsewhere
// slots are copied. It stops when it has spent budget steps and returns how
// many blocks it did, at least a leaf's part. After a StepError it is whole as far
// as it came. Nothing changes src meanwhile.
func (f *Forest) Copy(dst *Root, to uint64, src Root, from, count uint64, budget int) (uint64, error) {
	done := uint64(0)
	for done < count && budget > 0 {
		n, cost, err := f.copyStep(dst, to+done, src, from+done, count-done, budget)
		if err != nil {
			return done, err
		}
		done += n
		budget -= cost
	}
	return done, nil
}

// copyStep copies the first part of a range: nodes that are shared, or slots of a
// leaf.
func (f *Forest) copyStep(dst *Root, to uint64, src Root, from, count uint64, budget int) (n uint64, cost int, err error) {
	if level, ok := commonLevel(to, from, count, min(dst.Level, src.Level)); ok {
		most := int(min(uint64(budget), count/span(level)))
		if err := f.touchRun(dst, to, src, from, level, most); err != nil {
			return 0, 0, &StepError{err}
		}
		nodes, err := f.shareRun(dst, to, src, from, level, most)
		return uint64(nodes) * span(level), nodes, err
	}
	n = min(count, Fanout-to%Fanout)
	return n, slotCost, f.copySlots(dst, to, src, from, n)
}

// copySlots copies slots to one leaf.
func (f *Forest) copySlots(dst *Root, to uint64, src Root, from, count uint64) error {
	scratch := f.scratch.Get().(*[Fanout]extent.Slot)
	defer f.putScratch(scratch)
	slots := scratch[:count]
	if err := f.Lookup(src, from, slots); err != nil {
		return &StepError{err}
	}
	if err := f.TouchSet(*dst, to, count); err != nil {
		return &StepError{err}
	}
	if err := f.extents.Ref(slots); err != nil { // that of all of them, or of none
		return &StepError{err}
	}
	return f.Set(dst, to, slots)
}

func (f *Forest) putScratch(slots *[Fanout]extent.Slot) {
	if invariant.Enabled {
		for i := range slots {
			slots[i] = ^extent.Slot(0)
		}
	}
	f.scratch.Put(slots)
}

// commonLevel returns the highest level at which a whole node can be shared.
func commonLevel(to, from, count uint64, top uint8) (level uint8, ok bool) {
	for l := int(top); l >= 0; l-- {
		s := span(uint8(l))
		if count >= s && to%s == 0 && from%s == 0 {
			return uint8(l), true
		}
	}
	return 0, false
}

// shareInto puts the source's node of a level into the destination's place.
func (f *Forest) shareInto(dst *Root, to uint64, src Root, from uint64, level uint8) error {
	n, err := f.nodeAt(src, from, level)
	if err != nil {
		return err
	}
	if n == nil {
		return f.Clear(dst, to, span(level))
	}
	if err := f.addRef(n.ID()); err != nil {
		return err
	}
	if level == dst.Level {
		old := dst.Node
		dst.Node = n.ID()
		return f.release(old)
	}
	parent, err := f.own(dst, to, level+1)
	if err != nil {
		return err
	}
	at := index(to, level+1)
	old := uint64(parent.slots[at])
	if err := f.setChild(parent, at, n.ID()); err != nil {
		return err
	}
	return f.release(old)
}
