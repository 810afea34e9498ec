package backstore

import (
	"context"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
)

// MaxRunBlocks is the most blocks of a Run with names.
const MaxRunBlocks = blockmap.Fanout

// Run is a part of a snapshot: a hole, or blocks with names, or, with neither, bytes that
// have none and can only be read (a part of a block; a range that does not lie on blocks).
//
// A name is the store's identity, the series and a slot. It is never used for other data:
// see type series.
type Run struct {
	Off, Length int64 // bytes; of a run with names, multiples of BlockLength
	Hole        bool
	Series      uint64   // of all the slots
	Slots       []uint64 // one for each block, at most MaxRunBlocks
	CRC         []uint32 // CRC-32C of each block
}

// Named reports whether the run has names for its blocks.
func (r *Run) Named() bool { return len(r.Slots) > 0 }

// Range returns which bytes the run is.
func (r *Run) Range() Range { return Range{Offset: r.Off, Length: r.Length} }

// Runs calls fn with the runs of [off, off+length) of the snapshot's bytes, in order,
// without gaps, until fn returns an error, which it returns. fn must not keep the slices.
// No lock is held while fn runs.
func (n *Snapshot) Runs(ctx context.Context, off, length int64, fn func(Run) error) error {
	if err := n.store.beginSeries(ctx); err != nil {
		return err
	}
	w := runWalk{n: n, ctx: ctx, fn: fn}
	err := n.Extents(ctx, off, length, func(part Range, mapped bool) bool {
		if mapped {
			w.err = w.mapped(part)
		} else {
			w.err = w.put(part, true)
		}
		return w.err == nil
	})
	if w.err != nil {
		return w.err
	}
	if err != nil {
		return n.store.life.unread(tree{snapshot: n.state}.name(), off, err)
	}
	return w.flush()
}

// runWalk makes runs of the parts of a snapshot.
type runWalk struct {
	n   *Snapshot
	ctx context.Context
	fn  func(Run) error
	err error

	last  Run // without names, not passed to fn yet; its length can be 0
	slots [MaxRunBlocks]extent.Slot
	locs  [MaxRunBlocks]extent.Location
	names [MaxRunBlocks]uint64
	crcs  [MaxRunBlocks]uint32
}

// put adds a part without names.
func (w *runWalk) put(part Range, hole bool) error {
	if part.Length == 0 {
		return nil
	}
	if w.last.Length > 0 && w.last.Hole == hole {
		w.last.Length += part.Length
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.last = Run{Off: part.Offset, Length: part.Length, Hole: hole}
	return nil
}

// flush passes what put has added.
func (w *runWalk) flush() error {
	if w.last.Length == 0 {
		return nil
	}
	r := w.last
	w.last.Length = 0
	return w.fn(r)
}

// mapped makes runs of a part that is mapped, which lies in one range of the snapshot.
func (w *runWalk) mapped(part Range) error {
	at, _ := w.n.state.locate(part.Offset)
	head := min((BlockLength-at%BlockLength)%BlockLength, part.Length)
	if (part.Offset+head)%BlockLength != 0 {
		return w.put(part, false) // blocks of the snapshot are not blocks of the tree
	}
	if err := w.put(Range{Offset: part.Offset, Length: head}, false); err != nil {
		return err
	}
	off, left := part.Offset+head, part.Length-head
	for left >= BlockLength {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		block := uint64((at + off - part.Offset) / BlockLength)
		// Up to the end of a leaf of the tree.
		count := min(left/BlockLength, MaxRunBlocks-int64(block%MaxRunBlocks))
		if err := w.named(off, block, int(count)); err != nil {
			return err
		}
		off, left = off+count*BlockLength, left-count*BlockLength
	}
	return w.put(Range{Offset: off, Length: left}, false)
}

// named passes runs of whole blocks of the tree.
func (w *runWalk) named(off int64, block uint64, count int) error {
	slots, locs := w.slots[:count], w.locs[:count]
	err := w.n.store.reader.resolve(w.n.state.root, block, locs, slots)
	if metadataDamage(err) {
		// Reading says which block it is.
		return w.put(Range{Offset: off, Length: int64(count) * BlockLength}, false)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", tree{snapshot: w.n.state}.name(), err)
	}
	if err := w.flush(); err != nil {
		return err
	}
	for i, slot := range slots {
		w.names[i], w.crcs[i] = uint64(slot), locs[i].CRC
	}
	for i := 0; i < count; {
		series, n := w.n.store.series.of(w.names[i:count])
		r := Run{
			Off: off + int64(i)*BlockLength, Length: int64(n) * BlockLength,
			Series: series, Slots: w.names[i : i+n], CRC: w.crcs[i : i+n],
		}
		if err := w.fn(r); err != nil {
			return err
		}
		i += n
	}
	return nil
}
