package backstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"odx/backstore/extent"
	"odx/backstore/segment"
)

const (
	// MaxLend bounds the bytes of one Lend, and so the memory of its answer.
	MaxLend = 64 << 20
	// lendTries bounds how often segments are looked up again that were given up in the meantime.
	lendTries = 4
)

// Lent is a part of a snapshot: a hole, extents that lie one after the other in a segment that is
// held, or, with neither, bytes that can only be read.
type Lent struct {
	Off, Length int64 // bytes
	Hole        bool
	Segment     uint32 // of the maker; 0: no extents
	Block       uint32 // of the first extent
	Extents     []LentExtent
}

// LentExtent is an extent of a Lent. Its fingerprint is zeros where there is none.
type LentExtent struct {
	Fingerprint [32]byte
	CRC         []uint32 // of each block
}

// Loan is what a maker lends: all parts of a range, in order, without gaps.
type Loan struct {
	Place string // where the segments are
	Parts []Lent
}

// Lend returns where a range of the snapshot lies, at most MaxLend bytes, and holds the segments
// for the taker, durably. It returns ErrNoAdoption for a taker that cannot have them.
func (n *Snapshot) Lend(ctx context.Context, t Terms, off, length int64) (Loan, error) {
	s := n.store
	if err := s.checkTerms(t); err != nil {
		return Loan{}, err
	}
	if length > MaxLend {
		return Loan{}, fmt.Errorf("%w: %d bytes at once", ErrInvalid, length)
	}
	for tries := 0; ; tries++ {
		w := lendWalk{n: n, ctx: ctx}
		if err := w.walk(off, length); err != nil {
			return Loan{}, err
		}
		err := s.hold(ctx, t.Store, t.Stamp, w.segments)
		if errors.Is(err, errMovedOn) && tries < lendTries {
			continue // its extents are elsewhere by now
		}
		if err != nil {
			return Loan{}, err
		}
		return Loan{Place: s.opts.Siblings.Place(), Parts: w.parts}, nil
	}
}

// lendWalk is one look at where a range lies.
type lendWalk struct {
	n   *Snapshot
	ctx context.Context

	parts    []Lent
	segments []segment.ID // ascending, without repetition
	sums     []uint32     // room for checksums
	slots    [readBatch]extent.Slot
}

// walk looks a range up.
func (w *lendWalk) walk(off, length int64) (failed error) {
	err := w.n.Extents(w.ctx, off, length, func(part Range, mapped bool) bool {
		if !mapped {
			w.plain(part, true)
		} else {
			failed = w.mapped(part)
		}
		return failed == nil
	})
	return errors.Join(failed, err)
}

// plain adds a part without extents.
func (w *lendWalk) plain(r Range, hole bool) {
	if r.Length == 0 {
		return
	}
	if k := len(w.parts) - 1; k >= 0 && w.parts[k].Segment == 0 && w.parts[k].Hole == hole {
		w.parts[k].Length += r.Length
		return
	}
	w.parts = append(w.parts, Lent{Off: r.Offset, Length: r.Length, Hole: hole})
}

// mapped adds a part that is mapped, which lies in one range of the snapshot.
func (w *lendWalk) mapped(part Range) error {
	at, _ := w.n.state.locate(part.Offset)
	head := min((BlockLength-at%BlockLength)%BlockLength, part.Length)
	if (part.Offset+head)%BlockLength != 0 {
		w.plain(part, false) // blocks of the snapshot are not blocks of the tree
		return nil
	}
	w.plain(Range{Offset: part.Offset, Length: head}, false)
	off, left := part.Offset+head, part.Length-head
	for left >= BlockLength {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		block := uint64((at + off - part.Offset) / BlockLength)
		slots := w.slots[:min(left/BlockLength, readBatch-int64(block%readBatch))] // extents end there
		if err := w.n.store.parts.forest.Lookup(w.n.state.root, block, slots); err != nil {
			return w.n.store.life.unread(tree{snapshot: w.n.state}.name(), off, err)
		}
		if err := w.extents(off, slots); err != nil {
			return err
		}
		n := int64(len(slots)) * BlockLength
		off, left = off+n, left-n
	}
	w.plain(Range{Offset: off, Length: left}, false)
	return nil
}

// extents adds the extents that slots name.
func (w *lendWalk) extents(off int64, slots []extent.Slot) error {
	table := w.n.store.parts.extents
	for len(slots) > 0 {
		id, first := table.Split(slots[0])
		n := 1
		for n < len(slots) && slots[n] == slots[0]+extent.Slot(n) {
			if other, _ := table.Split(slots[n]); other != id {
				break
			}
			n++
		}
		x, ok, err := table.Entry(id)
		if err != nil && !metadataDamage(err) {
			return err
		}
		r := Range{Offset: off, Length: int64(n) * BlockLength}
		if err != nil || !ok || first+n > int(x.Blocks) || w.n.store.aliases.is(x.Addr.Segment) {
			// Damaged, which reading says; or lent to this store, which cannot lend it again.
			w.plain(r, false)
		} else {
			w.add(r, &x, first, n)
		}
		slots, off = slots[n:], off+r.Length
	}
	return nil
}

// add adds blocks of an extent. Only the whole extent has its fingerprint.
func (w *lendWalk) add(r Range, x *extent.Extent, first, n int) {
	at := len(w.sums)
	w.sums = append(w.sums, x.CRC[first:first+n]...)
	one := LentExtent{CRC: w.sums[at:len(w.sums):len(w.sums)]}
	if n == int(x.Blocks) {
		one.Fingerprint = x.Fingerprint
	}
	id, block := uint32(x.Addr.Segment), x.Addr.Block+uint32(first)
	if k := len(w.parts) - 1; k >= 0 && w.parts[k].Segment == id && w.parts[k].Block+uint32(w.parts[k].Length/BlockLength) == block {
		w.parts[k].Length += r.Length
		w.parts[k].Extents = append(w.parts[k].Extents, one)
		return
	}
	w.parts = append(w.parts, Lent{Off: r.Offset, Length: r.Length, Segment: id, Block: block, Extents: []LentExtent{one}})
	w.segments = insertSegment(w.segments, x.Addr.Segment)
}

// insertSegment adds a segment to a list in order, unless it is there.
func insertSegment(list []segment.ID, id segment.ID) []segment.ID {
	if at, found := slices.BinarySearch(list, id); !found {
		return slices.Insert(list, at, id)
	}
	return list
}
