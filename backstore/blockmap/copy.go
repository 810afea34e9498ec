package blockmap

import (
	"odx/backstore/extent"
	"odx/backstore/invariant"
)

// slotCost is the cost of copying the slots of one leaf, in steps. Sharing one node is
// one step.
const slotCost = 8

// StepError reports that a step of a Copy could not read its inputs. The failed step
// changed nothing; the steps before it are complete.
type StepError struct{ Err error }

func (e *StepError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Copy copies the mappings of blocks [from, from+count) of src to [to, to+count) of
// dst. It shares a node where both ranges have the same alignment to the node's span,
// and copies slots elsewhere. It stops after budget steps and returns the number of
// blocks copied, at least those of one leaf. After a StepError the returned number of
// blocks is copied and nothing else is changed. src must not change during the call.
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

// copyStep copies the first part of a range: it shares nodes or copies slots of one
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
	if err := f.extents.Ref(slots); err != nil { // all or none
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

// shareInto replaces the node of dst at the level by the node of src, shared.
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
