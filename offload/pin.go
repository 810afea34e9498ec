package offload

import (
	"context"
	"fmt"

	"odx/blockdev"
)

// Pinner pins ranges of an object, by a snapshot or a watch. They hold the first n of
// the bytes to be pinned.
type Pinner func(object Object, ranges []blockdev.Range, n int64) error

// Pin calls pin with the bytes of ranges of v, whole blocks of blockLength bytes, as of
// one point in time. Bytes of a volume outside the store are copied to a stage first,
// as many as time permits. Bytes of a View are pinned where they are if that is a
// single object; otherwise they are assembled in a stage: mapped from objects of the
// store, copied from other volumes.
//
// The error for a range that is not inside v wraps blockdev.ErrRange.
func (e *Engine) Pin(ctx context.Context, v blockdev.Volume, ranges []blockdev.Range, blockLength int, pin Pinner) error {
	total, err := blockdev.Sum(ranges, v.Size(), blockLength)
	if err != nil {
		return err
	}
	if object, ok := e.store.Object(v); ok {
		return pin(object, ranges, total)
	}
	if view, ok := v.(View); ok {
		return e.pinView(ctx, view, ranges, int64(blockLength), pin)
	}
	stage, err := e.newStage(ctx, total)
	if err != nil {
		return err
	}
	defer stage.remove()
	n, err := e.fillStage(stagingTime(ctx), stage.object, 0, v, ranges)
	if err != nil {
		return err
	}
	return pin(stage.object, []blockdev.Range{{Offset: 0, Length: n}}, n)
}

// pinView is Pin for a View.
func (e *Engine) pinView(ctx context.Context, v View, ranges []blockdev.Range, block int64, pin Pinner) error {
	g := gathering{engine: e}
	ctx = stagingTime(ctx)
	defer g.release()
	pinned := false
	err := e.WithMemory(ctx, v, func(ctx context.Context) error {
		return v.Pieces(ctx, ranges, func(pieces []Piece) (err error) {
			pinned, err = g.take(ctx, pieces, block, pin)
			return err
		})
	})
	if err != nil || pinned {
		return err
	}
	n, err := g.mapHeld(ctx)
	if err != nil {
		return err
	}
	if n = n / block * block; n == 0 {
		return fmt.Errorf("%w: less than a block could be assembled in time", blockdev.ErrRange)
	}
	return pin(g.stage.object, []blockdev.Range{{Offset: 0, Length: n}}, n)
}

// inOneObject returns the object that holds all pieces, nil if there is none, and its
// ranges, in order, with adjacent ones joined.
func (e *Engine) inOneObject(pieces []Piece) (Object, []blockdev.Range) {
	if pieces[0].Volume == nil {
		return nil, nil
	}
	object, ok := e.store.Object(pieces[0].Volume)
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
	return object, runs
}

func joinRange(runs []blockdev.Range, p Piece) []blockdev.Range {
	if n := len(runs); n > 0 && runs[n-1].Offset+runs[n-1].Length == p.Offset {
		runs[n-1].Length += p.Length
		return runs
	}
	return append(runs, blockdev.Range{Offset: p.Offset, Length: p.Length})
}

// gathering assembles pieces of several volumes in a stage.
type gathering struct {
	engine  *Engine
	parts   []part
	sources map[[16]byte]*source
	length  int64
	stage   *stage
}

// source is what a gathering has pinned of one object.
type source struct {
	object   Object
	ranges   []blockdev.Range
	length   int64
	snapshot Snapshot
}

// part is a piece in a snapshot; source is nil for bytes that are in the stage: copied
// there if they are foreign, zeros otherwise.
type part struct {
	source      *source
	foreign     bool
	src, length int64
}

// take pins the pieces if they are in one object, and otherwise holds them.
func (g *gathering) take(ctx context.Context, pieces []Piece, block int64, pin Pinner) (pinned bool, err error) {
	var n int64
	for _, p := range pieces {
		n += p.Length
	}
	if n < block {
		return false, fmt.Errorf("%w: a view returned pieces of %d bytes, less than a block", blockdev.ErrRange, n)
	}
	if object, runs := g.engine.inOneObject(pieces); object != nil && n%block == 0 {
		return true, pin(object, runs, n)
	}
	return false, g.hold(ctx, pieces)
}

// hold preserves the pieces as they are: those in the store by a snapshot of each
// object, others by copying them, as many as time permits.
func (g *gathering) hold(ctx context.Context, pieces []Piece) error {
	g.sources = make(map[[16]byte]*source)
	copied := false
	for _, p := range pieces {
		if p.Volume == nil {
			g.parts = append(g.parts, part{length: p.Length})
			continue
		}
		object, ok := g.engine.store.Object(p.Volume)
		if !ok {
			copied = true
			g.parts = append(g.parts, part{foreign: true, length: p.Length})
			continue
		}
		l := g.sources[object.ID()]
		if l == nil {
			l = &source{object: object}
			g.sources[object.ID()] = l
		}
		g.parts = append(g.parts, part{source: l, src: l.length, length: p.Length})
		l.ranges = joinRange(l.ranges, p)
		l.length += p.Length
	}
	for _, l := range g.sources {
		var err error
		if l.snapshot, err = g.engine.Transient(ctx, l.object.Snapshot, l.ranges); err != nil {
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

// copyForeign copies what is outside the store to its place in the stage. When the time
// is over, it drops the remaining parts.
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
		n, err := g.engine.fillStage(ctx, g.stage.object, at, pieces[i].Volume,
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

// mapHeld maps the snapshots to their places in the stage and returns how many bytes of
// the stage are complete, from its start.
func (g *gathering) mapHeld(ctx context.Context) (at int64, err error) {
	if g.stage == nil {
		if g.stage, err = g.engine.newStage(ctx, g.length); err != nil {
			return 0, err
		}
	}
	for _, p := range g.parts {
		for done := int64(0); done < p.length; {
			if p.source == nil {
				done, at = p.length, at+p.length
				continue
			}
			n, err := g.stage.object.Map(ctx, at, p.source.snapshot, p.src+done, p.length-done)
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
	for _, l := range g.sources {
		if l.snapshot != nil {
			l.snapshot.Release()
		}
	}
	if g.stage != nil {
		g.stage.remove()
	}
}
