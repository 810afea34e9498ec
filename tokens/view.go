package tokens

import (
	"context"
	"fmt"

	"odx/blockdev"
)

// View is a Volume whose bytes are in other volumes: a partition, a stripe, a
// mirror. The manager copies through it without moving bytes by asking where they
// are. The volumes at the bottom are its leaves.
type View interface {
	blockdev.Volume
	// Pieces calls take with where the bytes of ranges are, in their order: all of
	// them, or the first ones, whole logical blocks, where more pieces would be too
	// many. Until take returns nothing is written through the view, and what a read
	// of it would give is in the leaves.
	Pieces(ctx context.Context, ranges []blockdev.Range, take func([]Piece) error) error
	// Map is AddressSpace.Map. It ends early where the view is split, too.
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
	// Leaves returns the volumes at the bottom, each once or more often.
	Leaves() []blockdev.Volume
}

// Piece is a range of bytes of a volume that is no View. Without a Volume it is that
// many zeros.
type Piece struct {
	Volume         blockdev.Volume
	Offset, Length int64
}

// mapTarget is what bytes of a snapshot can be mapped to.
type mapTarget interface {
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
}

// mapTarget returns v as one, nil if its bytes have to be copied.
func (m *Manager) mapTarget(v blockdev.Volume) mapTarget {
	if view, ok := v.(View); ok {
		return view
	}
	if space, ok := m.store.AddressSpace(v); ok {
		return space
	}
	return nil
}

// MapTo is AddressSpace.Map for any volume but a View: to one outside the store it
// copies at most 1 MiB, of which length has to be whole logical blocks.
func (m *Manager) MapTo(ctx context.Context, v blockdev.Volume, dst int64, s Snapshot, src, length int64) (int64, error) {
	if space, ok := m.store.AddressSpace(v); ok {
		return space.Map(ctx, dst, s, src, length)
	}
	buf := copyBuffers.Get().(*[copyLength]byte)
	defer copyBuffers.Put(buf)
	p := buf[:min(length, copyLength)]
	if err := s.ReadAt(ctx, p, src); err != nil {
		return 0, err
	}
	if err := v.WriteAt(ctx, p, dst); err != nil {
		return 0, err
	}
	blockdev.CountCopied(ctx, int64(len(p)))
	return int64(len(p)), nil
}

// pinned takes a space of the store and the ranges of it that hold the first n
// bytes of what was asked for.
type pinned func(space AddressSpace, ranges []blockdev.Range, n int64) error

// pinView calls pin with the bytes of ranges of v as they are at one moment, or
// with the first of them, whole blocks. Those that are in one volume of the store
// are pinned there. Others are put together in a stage: mapped from volumes of the
// store, copied from those outside.
func (m *Manager) pinView(ctx context.Context, v View, ranges []blockdev.Range, block int64, pin pinned) error {
	g := gathering{m: m}
	ctx = stagingTime(ctx)
	defer g.release()
	linear := false
	err := v.Pieces(ctx, ranges, func(pieces []Piece) error {
		var n int64
		for _, p := range pieces {
			n += p.Length
		}
		if n < block {
			return fmt.Errorf("%w: a view has %d bytes in one piece, less than a block", blockdev.ErrRange, n)
		}
		space, runs := m.inOneSpace(pieces)
		if linear = space != nil && n%block == 0; linear {
			return pin(space, runs, n)
		}
		return g.hold(ctx, pieces)
	})
	if err != nil || linear {
		return err
	}
	n, err := g.mapHeld(ctx)
	if err != nil {
		return err
	}
	if n = n / block * block; n == 0 {
		return fmt.Errorf("%w: less than a block could be put together in time", blockdev.ErrRange)
	}
	return pin(g.stage.space, []blockdev.Range{{Offset: 0, Length: n}}, n)
}

// momentOfView opens what ranges of v hold now, or the first of them do.
func (m *Manager) momentOfView(ctx context.Context, v View, ranges []blockdev.Range, block int64) (s Snapshot, err error) {
	err = m.pinView(ctx, v, ranges, block, func(space AddressSpace, ranges []blockdev.Range, _ int64) error {
		s, err = m.snapshotForUse(ctx, space.Snapshot, ranges)
		return err
	})
	return s, err
}

// inOneSpace returns the space that holds all pieces, if there is one, and its
// ranges, in order, joined where they touch.
func (m *Manager) inOneSpace(pieces []Piece) (AddressSpace, []blockdev.Range) {
	if pieces[0].Volume == nil {
		return nil, nil
	}
	space, ok := m.store.AddressSpace(pieces[0].Volume)
	if !ok {
		return nil, nil
	}
	var runs []blockdev.Range
	for _, p := range pieces {
		if p.Volume != pieces[0].Volume {
			return nil, nil
		}
		runs = joinRange(runs, p)
	}
	return space, runs
}

func joinRange(runs []blockdev.Range, p Piece) []blockdev.Range {
	if n := len(runs); n > 0 && runs[n-1].Offset+runs[n-1].Length == p.Offset {
		runs[n-1].Length += p.Length
		return runs
	}
	return append(runs, blockdev.Range{Offset: p.Offset, Length: p.Length})
}

// gathering is pieces of several volumes that become one run of bytes.
type gathering struct {
	m      *Manager
	parts  []part
	leaves map[[16]byte]*leaf
	length int64
	stage  *stage
}

// leaf is what was held of one volume of the store.
type leaf struct {
	space    AddressSpace
	ranges   []blockdev.Range
	length   int64
	snapshot Snapshot
}

// part is a piece in a leaf's snapshot; leaf is nil for bytes that are in the
// stage already, by being copied there if they are foreign, as zeros otherwise.
type part struct {
	leaf        *leaf
	foreign     bool
	src, length int64
}

// hold keeps the pieces as they are: those in the store by a snapshot of each
// volume, others by copying them, as many as there is time for.
func (g *gathering) hold(ctx context.Context, pieces []Piece) error {
	g.leaves = make(map[[16]byte]*leaf)
	copied := false
	for _, p := range pieces {
		if p.Volume == nil {
			g.parts = append(g.parts, part{length: p.Length})
			continue
		}
		space, ok := g.m.store.AddressSpace(p.Volume)
		if !ok {
			copied = true
			g.parts = append(g.parts, part{foreign: true, length: p.Length})
			continue
		}
		l := g.leaves[space.ID()]
		if l == nil {
			l = &leaf{space: space}
			g.leaves[space.ID()] = l
		}
		g.parts = append(g.parts, part{leaf: l, src: l.length, length: p.Length})
		l.ranges = joinRange(l.ranges, p)
		l.length += p.Length
	}
	for _, l := range g.leaves {
		var err error
		if l.snapshot, err = g.m.snapshotForUse(ctx, l.space.Snapshot, l.ranges); err != nil {
			return err
		}
	}
	for _, p := range g.parts {
		g.length += p.length
	}
	if !copied {
		return nil
	}
	return g.copyForeign(ctx, pieces)
}

// copyForeign copies what is outside the store to its place in the stage. When the
// time is over, the rest of the parts is dropped.
func (g *gathering) copyForeign(ctx context.Context, pieces []Piece) (err error) {
	if g.stage, err = g.m.newStage(ctx, g.length); err != nil {
		return err
	}
	var at int64
	for i := range g.parts {
		p := &g.parts[i]
		if !p.foreign {
			at += p.length
			continue
		}
		n, err := g.m.fillStage(ctx, g.stage.space, at, Source{Volume: pieces[i].Volume},
			[]blockdev.Range{{Offset: pieces[i].Offset, Length: p.length}})
		if err != nil {
			return err
		}
		if at += n; n < p.length {
			p.length = n
			g.parts = g.parts[:i+1]
			return nil
		}
	}
	return nil
}

// mapHeld maps what is held to its place in the stage and returns how many bytes the
// stage has then, from the first one on.
func (g *gathering) mapHeld(ctx context.Context) (at int64, err error) {
	if g.stage == nil {
		if g.stage, err = g.m.newStage(ctx, g.length); err != nil {
			return 0, err
		}
	}
	for _, p := range g.parts {
		for done := int64(0); done < p.length; {
			if p.leaf == nil {
				done, at = p.length, at+p.length
				continue
			}
			n, err := g.stage.space.Map(ctx, at, p.leaf.snapshot, p.src+done, p.length-done)
			if err != nil {
				return 0, err
			}
			done, at = done+n, at+n
			if blockdev.Late(ctx) {
				return at, nil
			}
		}
	}
	return at, nil
}

func (g *gathering) release() {
	for _, l := range g.leaves {
		if l.snapshot != nil {
			l.snapshot.Release()
		}
	}
	if g.stage != nil {
		g.stage.remove()
	}
}
