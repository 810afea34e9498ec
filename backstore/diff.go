package backstore

import (
	"context"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
)

// diffStep is how many map nodes are compared between two looks at the context.
const diffStep = 256

// Difference is a range of bytes in which two snapshots may differ.
type Difference struct {
	Range
	Hole bool // it reads as zeros in the newer one
}

// Diff calls fn with the ranges of [off, off+length) in which n may differ from base (nil:
// holes), in order; ranges of one kind that touch are one. It ends with an error of fn.
// Both are taken as bytes from 0 on, and base as followed by zeros where it is shorter.
//
// It compares map nodes and slots, not bytes: equal nodes are equal trees (blockmap.Diff),
// and equal slots are equal data, because extents never change and their numbers are never
// used again. So what is left out is equal. What is reported differs, unless the same bytes
// were stored again: as another extent where deduplication was off or had forgotten the
// first one, or as an extent of another length. Where a range of the snapshots begins or
// ends within a block, the whole block counts. Hole is exact.
//
// It reads O(what differs) map nodes where both have their bytes at the same place of a
// volume, and all nodes otherwise. No lock is held while fn runs, and none longer than it
// takes to read a row of the metadata, since what snapshots hold does not change.
func (n *Snapshot) Diff(ctx context.Context, base *Snapshot, off, length int64, fn func(Difference) error) error {
	n.held.Use()
	if !(Range{Offset: off, Length: length}).In(n.state.length) {
		return fmt.Errorf("%w: snapshot %d has %d bytes, wanted %d at %d", ErrRange, n.state.id, n.state.length, length, off)
	}
	if base != nil {
		base.held.Use()
	}
	w := diffWalk{f: n.store.parts.forest, ctx: ctx, fn: fn}
	for length > 0 {
		if n.store.life.closed.Load() {
			return ErrClosed
		}
		at, piece := n.state.locate(off)
		p := diffPiece{root: n.state.root, at: at, length: min(piece, length), off: off, same: true}
		if base != nil && off < base.state.length {
			baseAt, piece := base.state.locate(off)
			p.length = min(p.length, piece)
			p.base, p.baseAt, p.same = base.state.root, baseAt, baseAt == at
		}
		first, count := p.blocks()
		if n.state.stale.Check(first, count) != nil || base != nil && base.state.stale.Check(uint64(p.baseAt/BlockLength), count+1) != nil {
			p.stale = true
		}
		if err := w.piece(p); w.err != nil {
			return w.err
		} else if err != nil {
			return n.store.life.unread(tree{snapshot: n.state}.name(), off, err)
		}
		off, length = off+p.length, length-p.length
	}
	return w.flush()
}

// diffPiece is bytes that lie in one piece in both snapshots.
type diffPiece struct {
	off, length int64         // bytes of the snapshots
	root, base  blockmap.Root // base is a hole where there is none
	at, baseAt  int64         // bytes of the trees
	same        bool          // they are at the same place of both trees
	stale       bool          // of a rescue: something of it cannot be read, so that nothing is known
}

// blocks returns which blocks of the newer tree the piece touches.
func (p *diffPiece) blocks() (first, count uint64) {
	first = uint64(p.at / BlockLength)
	return first, uint64((p.at+p.length+BlockLength-1)/BlockLength) - first
}

// diffWalk joins the differences of the pieces.
type diffWalk struct {
	f    *blockmap.Forest
	ctx  context.Context
	fn   func(Difference) error
	last Difference // not passed to fn yet; its length can be 0
	err  error      // of fn
}

func (w *diffWalk) put(d Difference) error {
	if w.last.Length > 0 && w.last.Hole == d.Hole && w.last.End() == d.Offset {
		w.last.Length += d.Length
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.last = d
	return nil
}

func (w *diffWalk) flush() error {
	if w.last.Length == 0 {
		return nil
	}
	d := w.last
	w.last.Length = 0
	w.err = w.fn(d)
	return w.err
}

// piece passes what differs of a piece.
func (w *diffWalk) piece(p diffPiece) error {
	if p.stale {
		return w.put(Difference{Range: Range{Offset: p.off, Length: p.length}})
	}
	first, count := p.blocks()
	for end := first + count; first < end; {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		next, err := w.step(&p, first, end-first)
		if w.err != nil || err != nil {
			return err
		}
		first = next
	}
	return nil
}

// step compares the next blocks of a piece, and returns the block to continue from.
func (w *diffWalk) step(p *diffPiece, first, count uint64) (next uint64, err error) {
	put := func(r blockmap.Run) {
		lo := max(int64(r.First)*BlockLength, p.at)
		hi := min(int64(r.First+r.Count)*BlockLength, p.at+p.length)
		if w.err == nil {
			_ = w.put(Difference{Range: Range{Offset: p.off + lo - p.at, Length: hi - lo}, Hole: !r.Mapped})
		}
	}
	if p.same {
		return w.f.Diff(p.root, p.base, first, count, diffStep, put)
	}
	return w.shifted(p, first, min(count, blockmap.Fanout), put)
}

// shifted compares the slots of blocks that are at different places of the two trees. If
// they do not even lie alike within a block, all of it may differ.
func (w *diffWalk) shifted(p *diffPiece, first, count uint64, put func(blockmap.Run)) (next uint64, err error) {
	var now, then [blockmap.Fanout]extent.Slot
	if err := w.f.Lookup(p.root, first, now[:count]); err != nil {
		return first, err
	}
	if p.at%BlockLength != p.baseAt%BlockLength {
		for i := range count {
			put(blockmap.Run{First: first + i, Count: 1, Mapped: now[i] != 0})
		}
		return first + count, nil
	}
	from := first + uint64(p.baseAt/BlockLength) - uint64(p.at/BlockLength)
	if err := w.f.Lookup(p.base, from, then[:count]); err != nil {
		return first, err
	}
	blockmap.DiffSlots(now[:count], then[:count], first, put)
	return first + count, nil
}
