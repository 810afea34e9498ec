package blockmap

import (
	"fmt"

	"odx/backstore/extent"
)

// Wake returns a channel that receives when there may be dropped nodes.
func (f *Forest) Wake() <-chan struct{} { return f.wake }

// Reap releases the children and extents of at most limit dropped nodes and deletes the
// nodes. It reports whether dropped nodes remain. If a node cannot be read, Reap sets
// it aside, changes nothing, and returns the error with more set.
func (f *Forest) Reap(limit int) (more bool, err error) {
	for range limit {
		f.droppedMu.Lock()
		if len(f.dropped) == 0 {
			f.droppedMu.Unlock()
			return false, nil
		}
		id := f.dropped[len(f.dropped)-1]
		f.dropped = f.dropped[:len(f.dropped)-1]
		f.droppedMu.Unlock()
		if err := f.touchNode(id); err != nil {
			// The children are unknown, so they keep their references.
			f.setAside(id)
			return true, fmt.Errorf("free map node %d: %w", id, err)
		}
		if err := f.reap(id); err != nil {
			return false, err
		}
	}
	f.droppedMu.Lock()
	defer f.droppedMu.Unlock()
	return len(f.dropped) > 0, nil
}

// setAside excludes a dropped node from reaping. Checkpoints still store it.
func (f *Forest) setAside(id uint64) {
	f.droppedMu.Lock()
	f.aside = append(f.aside, id)
	f.droppedMu.Unlock()
}

// Aside returns the number of dropped nodes that cannot be freed because they are
// damaged.
func (f *Forest) Aside() int {
	f.droppedMu.Lock()
	defer f.droppedMu.Unlock()
	return len(f.aside)
}

func (f *Forest) reap(id uint64) error {
	n, err := f.nodes.Get(id)
	if err != nil {
		return err
	}
	if n.deleted {
		return fmt.Errorf("%w: node %d dropped twice", ErrInconsistent, id)
	}
	if n.level == 0 {
		err = f.extents.Unref(n.slots[:])
	} else {
		err = f.releaseChildren(n)
	}
	if err != nil {
		return err
	}
	return f.delete(n)
}

// releaseChildren removes a node's references to its children.
func (f *Forest) releaseChildren(n *node) error {
	children := f.scratch.Get().(*[Fanout]extent.Slot)
	defer f.putScratch(children)
	*children = n.slots
	return f.releaseAll(children[:])
}

// delete removes a node without references and without children.
func (f *Forest) delete(n *node) error {
	n, err := f.nodes.Lock(n.ID())
	if err != nil {
		return err
	}
	f.nodes.Change(n)
	n.deleted = true
	n.slots = [Fanout]extent.Slot{}
	n.Unlock()
	return nil
}
