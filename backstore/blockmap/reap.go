package blockmap

import (
	"fmt"

	"odx/backstore/extent"
)

// Wake receives when there may be dropped nodes to reap.
func (f *Forest) Wake() <-chan struct{} { return f.wake }

// Reap passes the loss of dropped nodes on to what they point to and deletes
// them, at most limit nodes. It reports whether more are waiting. An error with
// more is of a node that cannot be read; it is set aside, and nothing was changed.
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
			// What it points to keeps its references: what that is, is not known.
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

// setAside keeps a dropped node in the checkpoints, and does not reap it.
func (f *Forest) setAside(id uint64) {
	f.droppedMu.Lock()
	f.aside = append(f.aside, id)
	f.droppedMu.Unlock()
}

// Aside returns how many dropped nodes cannot be freed because of damage.
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
		return fmt.Errorf("%w: node %d was dropped twice", ErrInconsistent, id)
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

// releaseChildren takes the references of a node from its children.
func (f *Forest) releaseChildren(n *node) error {
	children := f.scratch.Get().(*[Fanout]extent.Slot)
	defer f.putScratch(children)
	*children = n.slots
	return f.releaseAll(children[:])
}

// delete removes a node that nothing refers to and that refers to nothing.
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
