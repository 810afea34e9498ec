package offload

import (
	"context"
	"fmt"

	"odx/blockdev"
)

// Pinner takes a space of the store and the ranges of it that hold the first n bytes
// of what was asked for. It pins them, by a snapshot or a watch.
type Pinner func(space AddressSpace, ranges []blockdev.Range, n int64) error

// Pin calls pin with the bytes of ranges of v, whole blocks of blockLength bytes, as
// they are at one point in time. Those of a volume outside the store are copied to a
// hidden one before, as many as there is time for. A View's are pinned where they are
// if that is in one volume; others are put together: mapped from volumes of the store,
// copied from those outside.
//
// An error for a range that is not inside v wraps blockdev.ErrRange.
func (e *Engine) Pin(ctx context.Context, v blockdev.Volume, ranges []blockdev.Range, blockLength int, pin Pinner) error {
	total, err := blockdev.Sum(ranges, v.Size(), blockLength)
	if err != nil {
		return err
	}
	if space, ok := e.store.AddressSpace(v); ok {
		return pin(space, ranges, total)
	}
	if view, ok := v.(View); ok {
		return e.pinView(ctx, view, ranges, int64(blockLength), pin)
	}
	stage, err := e.newStage(ctx, total)
	if err != nil {
		return err
	}
	defer stage.remove()
	n, err := e.fillStage(stagingTime(ctx), stage.space, 0, v, ranges)
	if err != nil {
		return err
	}
	return pin(stage.space, []blockdev.Range{{Offset: 0, Length: n}}, n)
}

// pinView is Pin for a View.
func (e *Engine) pinView(ctx context.Context, v View, ranges []blockdev.Range, block int64, pin Pinner) error {
	g := gathering{engine: e}
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
		space, runs := e.inOneSpace(pieces)
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

// inOneSpace returns the space that holds all pieces, if there is one, and its
// ranges, in order, joined where they touch.
func (e *Engine) inOneSpace(pieces []Piece) (AddressSpace, []blockdev.Range) {
	if pieces[0].Volume == nil {
		return nil, nil
	}
	space, ok := e.store.AddressSpace(pieces[0].Volume)
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
	engine *Engine
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
		space, ok := g.engine.store.AddressSpace(p.Volume)
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
		if l.snapshot, err = g.engine.Transient(ctx, l.space.Snapshot, l.ranges); err != nil {
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
	if g.stage, err = g.engine.newStage(ctx, g.length); err != nil {
		return err
	}
	var at int64
	for i := range g.parts {
		p := &g.parts[i]
		if !p.foreign {
			at += p.length
			continue
		}
		n, err := g.engine.fillStage(ctx, g.stage.space, at, pieces[i].Volume,
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
		if g.stage, err = g.engine.newStage(ctx, g.length); err != nil {
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
