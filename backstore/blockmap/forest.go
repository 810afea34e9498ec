// Package blockmap is the map from blocks of an address space to extents: a radix tree
// of fixed geometry, like a page table. A node has 512 slots; a root at level n spans
// 512^(n+1) blocks.
//
// All trees live in one Forest and share nodes. A node counts its references from
// parents and roots; an extent counts its references from leaf slots. To copy a range,
// references to the largest nodes wholly inside it are added ("sharing"). To change a
// shared node, it is copied first, which passes one reference on to each child (Rodeh,
// "B-trees, Shadowing, and Clones": counts are pushed down lazily). A node that loses
// its last reference is added to the list of dropped nodes. Reap releases its children,
// a bounded number of nodes per call, so that dropping a large tree blocks no other
// operation.
//
// The owner of a tree locks it: methods that change a Root require the exclusive lock,
// methods that read or share it the shared lock. Methods that change anything must not
// run during a checkpoint cut. A failed change leaves the forest in an unknown state:
// the store must not be used after it.
package blockmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"odx/backstore/extent"
	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/refs"
)

// ErrInconsistent reports a damaged store: a node is missing or has the wrong level.
var ErrInconsistent = errors.New("block map is inconsistent")

// The first bytes of the keys of nodes and of pages of counts. The number follows in eight
// bytes.
const (
	NodePrefix  = 'n'
	CountPrefix = 'c'
)

// Root is a tree: its top node (0: all holes) and that node's level.
type Root struct {
	Node  uint64
	Level uint8
}

// Blocks returns how many blocks the tree spans.
func (r Root) Blocks() uint64 { return span(r.Level) }

// Extents is the part of the extent table that counts the references of map slots.
type Extents interface {
	Ref(slots []extent.Slot) error
	Unref(slots []extent.Slot) error
	// Touch reads the rows that Ref and Unref need. It changes nothing.
	Touch(slots []extent.Slot) error
	// TouchRef reads the rows that Ref needs. It changes nothing.
	TouchRef(slots []extent.Slot) error
}

// Options configure a Forest.
type Options struct {
	KV       meta.Reader
	Clock    *pages.Clock
	Extents  Extents
	MaxBytes int64    // bound of the node and count caches
	Next     uint64   // lowest node number never allocated
	Dropped  []uint64 // nodes without references, not yet reaped
}

// Forest holds the nodes of all trees of a store.
type Forest struct {
	nodes   *pages.Cache[*node]
	counts  *refs.Counts
	extents Extents
	next    atomic.Uint64

	scratch sync.Pool // of *[Fanout]extent.Slot

	droppedMu sync.Mutex
	dropped   []uint64      // guarded by droppedMu
	aside     []uint64      // dropped and damaged, kept for a repair; guarded by droppedMu
	wake      chan struct{} // capacity 1; receives when dropped may be non-empty
}

// New returns the forest stored in o.KV.
func New(o Options) *Forest {
	f := &Forest{extents: o.Extents, dropped: o.Dropped, wake: make(chan struct{}, 1)}
	f.next.Store(max(o.Next, 1))
	f.scratch.New = func() any { return new([Fanout]extent.Slot) }
	countBytes := o.MaxBytes / 16
	f.nodes = pages.New(pages.Config[*node]{
		KV: o.KV, Clock: o.Clock, Prefix: NodePrefix,
		MaxObjects: int((o.MaxBytes - countBytes) / nodeBytes),
		Decode: func(id uint64, stored []byte) (*node, error) {
			if stored == nil {
				return nil, fmt.Errorf("%w: node %d does not exist", ErrInconsistent, id)
			}
			return decodeNode(stored)
		},
	})
	f.counts = refs.New(refs.Options{Kind: countKind, KV: o.KV, Clock: o.Clock, MaxBytes: countBytes})
	if len(o.Dropped) > 0 {
		f.wake <- struct{}{}
	}
	return f
}

// Next returns the lowest node number never allocated.
func (f *Forest) Next() uint64 { return f.next.Load() }

// DirtyBytes returns the approximate memory, in bytes, of the objects changed since the
// last checkpoint cut.
func (f *Forest) DirtyBytes() int64 {
	return int64(f.nodes.Dirty())*nodeBytes + f.counts.DirtyBytes()
}

// Lookup fills dst with the slots of consecutive blocks, starting at block. Blocks
// beyond the tree's span are holes.
func (f *Forest) Lookup(r Root, block uint64, dst []extent.Slot) error {
	for len(dst) > 0 {
		within := int(block % Fanout)
		n := min(len(dst), Fanout-within)
		leaf, err := f.nodeAt(r, block, 0)
		if err != nil {
			return err
		}
		if leaf == nil {
			clear(dst[:n])
		} else {
			copy(dst[:n], leaf.slots[within:])
		}
		dst = dst[n:]
		block += uint64(n)
	}
	return nil
}

// nodeAt returns the node at the level that maps the block, or nil for a hole.
func (f *Forest) nodeAt(r Root, block uint64, level uint8) (*node, error) {
	if r.Node == 0 || block >= span(r.Level) {
		return nil, nil
	}
	id := r.Node
	for l := r.Level; ; l-- {
		n, err := f.node(id, l)
		if err != nil {
			return nil, err
		}
		if l == level {
			return n, nil
		}
		if id = uint64(n.slots[index(block, l)]); id == 0 {
			return nil, nil
		}
	}
}

func (f *Forest) node(id uint64, level uint8) (*node, error) {
	n, err := f.nodes.Get(id)
	if err != nil {
		return nil, err
	}
	if n.level != level || n.deleted {
		return nil, fmt.Errorf("%w: node %d has level %d, want %d", ErrInconsistent, id, n.level, level)
	}
	return n, nil
}

// Set maps consecutive blocks, starting at block, to slots. The caller has added the
// references of slots; Set removes those of the replaced slots.
func (f *Forest) Set(r *Root, block uint64, slots []extent.Slot) error {
	if block+uint64(len(slots)) > r.Blocks() {
		return fmt.Errorf("%w: block %d is beyond the tree", ErrInconsistent, block+uint64(len(slots)))
	}
	for len(slots) > 0 {
		within := int(block % Fanout)
		n := min(len(slots), Fanout-within)
		leaf, err := f.own(r, block, 0)
		if err != nil {
			return err
		}
		if err := f.replace(leaf, within, slots[:n]); err != nil {
			return err
		}
		slots = slots[n:]
		block += uint64(n)
	}
	return nil
}

// replace sets slots of a leaf that the caller owns and removes the references of the
// replaced slots.
func (f *Forest) replace(n *node, at int, slots []extent.Slot) error {
	n, err := f.nodes.Lock(n.ID())
	if err != nil {
		return err
	}
	defer n.Unlock()
	f.nodes.Change(n)
	if err := f.extents.Unref(n.slots[at : at+len(slots)]); err != nil {
		return err
	}
	copy(n.slots[at:], slots)
	return nil
}

// setChild sets one slot of a node that the caller owns.
func (f *Forest) setChild(n *node, at int, child uint64) error {
	if uint64(n.slots[at]) == child {
		return nil
	}
	n, err := f.nodes.Lock(n.ID())
	if err != nil {
		return err
	}
	f.nodes.Change(n)
	n.slots[at] = extent.Slot(child)
	n.Unlock()
	return nil
}

// own makes the path from the root to the node at the level that maps the block
// exclusive to this tree, and returns that node. It creates nodes in place of holes.
func (f *Forest) own(r *Root, block uint64, level uint8) (*node, error) {
	n, err := f.ownNode(r.Node, r.Level)
	if err != nil {
		return nil, err
	}
	r.Node = n.ID()
	for l := r.Level; l > level; l-- {
		at := index(block, l)
		child, err := f.ownNode(uint64(n.slots[at]), l-1)
		if err != nil {
			return nil, err
		}
		if err := f.setChild(n, at, child.ID()); err != nil {
			return nil, err
		}
		n = child
	}
	return n, nil
}

// ownNode returns a node with the contents of node id and one reference: the caller's
// reference to id moves to it.
func (f *Forest) ownNode(id uint64, level uint8) (*node, error) {
	if id == 0 {
		return f.insert(&node{level: level}), nil
	}
	n, err := f.node(id, level)
	if err != nil {
		return nil, err
	}
	extra, err := f.counts.Extra(id)
	if err != nil || extra == 0 {
		return n, err
	}
	c := &node{level: level, slots: n.slots}
	if err := f.refChildren(c); err != nil {
		return nil, err
	}
	f.insert(c)
	return c, f.release(id)
}

// refChildren adds a reference to each child or extent of a new node.
func (f *Forest) refChildren(n *node) error {
	if n.level == 0 {
		return f.extents.Ref(n.slots[:])
	}
	return f.addRefs(n.slots[:])
}

func (f *Forest) insert(n *node) *node {
	f.nodes.Insert(f.next.Add(1)-1, n)
	return n
}

// release removes a reference from a node, and drops the node with the last one.
func (f *Forest) release(id uint64) error {
	if id == 0 {
		return nil
	}
	last, err := f.dropRef(id)
	if err == nil && last {
		f.drop(id)
	}
	return err
}

// drop adds a node without references to the dropped nodes.
func (f *Forest) drop(id uint64) {
	f.checkNotDropped(id)
	f.droppedMu.Lock()
	f.dropped = append(f.dropped, id)
	f.droppedMu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// checkNotDropped panics, in builds with invariants, if the node has no references.
func (f *Forest) checkNotDropped(id uint64) {
	if !invariant.Enabled {
		return
	}
	f.droppedMu.Lock()
	defer f.droppedMu.Unlock()
	if slices.Contains(f.dropped, id) {
		invariant.Violated("map node %d: reference added to a dropped node", id)
	}
}

// Hold adds a reference to the tree; Drop removes it.
func (f *Forest) Hold(r Root) error {
	if r.Node == 0 {
		return nil
	}
	return f.addRef(r.Node)
}

// Drop removes a reference from the tree.
func (f *Forest) Drop(r Root) error { return f.release(r.Node) }

// Grow raises the root's level until the tree spans at least blocks.
func (f *Forest) Grow(r *Root, blocks uint64) {
	for r.Blocks() < blocks {
		if r.Node != 0 {
			top := &node{level: r.Level + 1}
			top.slots[0] = extent.Slot(r.Node)
			r.Node = f.insert(top).ID()
		}
		r.Level++
	}
}

// Cut is the forest's part of a checkpoint cut.
type Cut struct {
	nodes  *pages.Cut[*node]
	counts *pages.Cut[*refs.Page]
	// Dropped are the nodes not yet reaped at the cut.
	Dropped []uint64
	// Next is the lowest node number not allocated at the cut.
	Next uint64
}

// Cut takes the forest's part of a checkpoint cut.
func (f *Forest) Cut() *Cut {
	f.droppedMu.Lock()
	dropped := slices.Concat(f.dropped, f.aside)
	f.droppedMu.Unlock()
	return &Cut{nodes: f.nodes.Cut(), counts: f.counts.Cut(), Dropped: dropped, Next: f.Next()}
}

// Parts returns the encoders of the changed objects by the first byte of their keys.
// Each emits its keys in ascending order.
func (c *Cut) Parts() map[byte]func(emit func(meta.Op) error) error {
	return map[byte]func(emit func(meta.Op) error) error{NodePrefix: c.nodes.Encode, CountPrefix: c.counts.Encode}
}

// Done ends the cut after the metadata engine has stored it.
func (c *Cut) Done() { c.nodes.Done(); c.counts.Done() }

// Abandon ends a cut that could not be stored; its objects remain dirty.
func (c *Cut) Abandon() { c.nodes.Abandon(); c.counts.Abandon() }

// EncodeDropped returns the stored form of a list of nodes.
func EncodeDropped(ids []uint64) []byte {
	var b []byte
	for _, id := range ids {
		b = binary.AppendUvarint(b, id)
	}
	return b
}

// DecodeDropped decodes the output of EncodeDropped.
func DecodeDropped(b []byte) ([]uint64, error) {
	var ids []uint64
	for len(b) > 0 {
		id, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("%w: list of dropped nodes is malformed", ErrInconsistent)
		}
		ids = append(ids, id)
		b = b[n:]
	}
	return ids, nil
}
