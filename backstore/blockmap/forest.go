// Package blockmap is the map from blocks of an address space to extents: a
// radix tree of fixed geometry, like a page table. A node has 512 slots; a root
// at level n spans 512^(n+1) blocks.
//
// All trees live in one Forest and share nodes. A node counts its references
// from parents and roots; an extent counts its references from leaf slots. To
// copy a range, references to the largest nodes wholly inside it are added
// ("sharing"). To change a shared node, it is copied first, which passes one
// reference on to each child (Rodeh, "B-trees, Shadowing, and Clones": counts
// are pushed down lazily). When a node loses its last reference it joins the
// list of dropped nodes; Reap passes the loss on to its children, a bounded
// number at a time, so that dropping a large tree holds nothing up.
//
// A tree is guarded by its owner: methods that change a Root need it locked
// exclusively, methods that read or share it at least shared. Methods that
// change anything must run while no checkpoint takes its cut. A failed change
// leaves the forest in an unknown state: the store must not be used after it.
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

// ErrInconsistent: a node is missing or of the wrong level. The store has been
// damaged.
var ErrInconsistent = errors.New("block map is inconsistent")

// Key prefixes of nodes and of count pages.
const (
	nodePrefix  = 'n'
	countPrefix = 'c'
)

// Root is a tree: its top node (0: all holes) and that node's level.
type Root struct {
	Node  uint64
	Level uint8
}

// Blocks returns how many blocks the tree spans.
func (r Root) Blocks() uint64 { return span(r.Level) }

// Extents is the part of the extent table that maps keep in step.
type Extents interface {
	Ref(slots []extent.Slot) error
	Unref(slots []extent.Slot) error
	// Touch reads what Ref and Unref need, and changes nothing.
	Touch(slots []extent.Slot) error
	// TouchRef reads what Ref needs, and changes nothing.
	TouchRef(slots []extent.Slot) error
}

// Options configure a Forest.
type Options struct {
	KV       meta.Reader
	Clock    *pages.Clock
	Extents  Extents
	MaxBytes int64    // bound of the node and count caches
	Next     uint64   // first node number that was never used
	Dropped  []uint64 // nodes that lost their last reference and were not reaped yet
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
	aside     []uint64      // dropped, and damaged: they wait for a repair; guarded by droppedMu
	wake      chan struct{} // holds a token when dropped may be non-empty
}

// New returns the forest stored in o.KV.
func New(o Options) *Forest {
	f := &Forest{extents: o.Extents, dropped: o.Dropped, wake: make(chan struct{}, 1)}
	f.next.Store(max(o.Next, 1))
	f.scratch.New = func() any { return new([Fanout]extent.Slot) }
	countBytes := o.MaxBytes / 16
	f.nodes = pages.New(pages.Config[*node]{
		KV: o.KV, Clock: o.Clock, Prefix: nodePrefix,
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

// Next returns the first node number that was never used.
func (f *Forest) Next() uint64 { return f.next.Load() }

// DirtyBytes returns about the memory of what changed since the last cut.
func (f *Forest) DirtyBytes() int64 {
	return int64(f.nodes.Dirty())*nodeBytes + f.counts.DirtyBytes()
}

// Lookup fills dst with the slots of consecutive blocks from block on. Blocks
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

// nodeAt returns the node of a level that holds the block, nil for a hole.
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
		return nil, fmt.Errorf("%w: node %d of level %d stands where one of level %d should", ErrInconsistent, id, n.level, level)
	}
	return n, nil
}

// Set points consecutive blocks from block on at slots. The references that
// slots mean have been added already; those of the old slots are taken back.
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

// replace changes slots of a leaf that its caller owns and takes back the
// references of the old ones.
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

// setChild changes one slot of a node that its caller owns.
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

// own makes the path from the root to the node of a level that holds the block
// exclusive to this tree, making nodes where there are holes, and returns that
// node.
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

// ownNode returns a node with the contents of node id that has one reference,
// the caller's, which it had on id before.
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

// refChildren adds a reference to everything that a new node points to.
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

// release takes a reference from a node; the last one makes it dropped.
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

// drop lists a node that has lost its last reference.
func (f *Forest) drop(id uint64) {
	f.proveNotDropped(id)
	f.droppedMu.Lock()
	f.dropped = append(f.dropped, id)
	f.droppedMu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// proveNotDropped panics, in builds with invariants, for a node that has lost
// its last reference before.
func (f *Forest) proveNotDropped(id uint64) {
	if !invariant.Enabled {
		return
	}
	f.droppedMu.Lock()
	defer f.droppedMu.Unlock()
	if slices.Contains(f.dropped, id) {
		invariant.Violated("map node %d has no reference and is referred to", id)
	}
}

// Hold adds a reference to the tree; Drop takes it back.
func (f *Forest) Hold(r Root) error {
	if r.Node == 0 {
		return nil
	}
	return f.addRef(r.Node)
}

// Drop gives the tree up.
func (f *Forest) Drop(r Root) error { return f.release(r.Node) }

// Grow raises the root's level until the tree spans that many blocks.
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

// Cut is the forest's part of a checkpoint's cut.
type Cut struct {
	nodes  *pages.Cut[*node]
	counts *pages.Cut[*refs.Page]
	// Dropped are the nodes that wait to be reaped; they belong to the cut.
	Dropped []uint64
	// Next is the first node number that was not used at the cut.
	Next uint64
}

// Cut takes the forest's part of a checkpoint's cut.
func (f *Forest) Cut() *Cut {
	f.droppedMu.Lock()
	dropped := slices.Concat(f.dropped, f.aside)
	f.droppedMu.Unlock()
	return &Cut{nodes: f.nodes.Cut(), counts: f.counts.Cut(), Dropped: dropped, Next: f.Next()}
}

// Parts returns what encodes the changed objects, each with the first byte of
// its keys, which come in order.
func (c *Cut) Parts() map[byte]func(emit func(meta.Op) error) error {
	return map[byte]func(emit func(meta.Op) error) error{nodePrefix: c.nodes.Encode, countPrefix: c.counts.Encode}
}

// Done ends the cut after the engine holds it.
func (c *Cut) Done() { c.nodes.Done(); c.counts.Done() }

// Abandon ends a cut that could not be stored.
func (c *Cut) Abandon() { c.nodes.Abandon(); c.counts.Abandon() }

// EncodeDropped and DecodeDropped are the stored form of a list of nodes.
func EncodeDropped(ids []uint64) []byte {
	var b []byte
	for _, id := range ids {
		b = binary.AppendUvarint(b, id)
	}
	return b
}

// DecodeDropped reads what EncodeDropped wrote.
func DecodeDropped(b []byte) ([]uint64, error) {
	var ids []uint64
	for len(b) > 0 {
		id, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("%w: list of dropped nodes", ErrInconsistent)
		}
		ids = append(ids, id)
		b = b[n:]
	}
	return ids, nil
}
