// Package view implements volumes over other volumes: partition, stripe, mirror, cache,
// verify, and origin with snapshot. They stack: each is a Device over Devices, with
// volumes (Base) at the bottom and a Stack, which is served, on top.
//
// A view supports reads, writes, unmaps and flushes like any volume, and two more
// methods for copies by token. For an offload read, Locate returns the pieces of the
// volumes at the bottom, after it has written back what they lack. For an offload
// write, Map passes the mapping down, with the effects of a write (on all legs of a
// mirror, a cache, a snapshot), and may do less than requested. If the volumes are in
// the store, neither moves bytes.
package view

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sync/semaphore"

	"odx/backstore"
	"odx/backstore/fence"
	"odx/blockdev"
	"odx/offload"
)

// Device is a Volume that supports copies by token. It is safe for concurrent use.
type Device interface {
	blockdev.Volume
	// Locate returns the pieces of a range, or of its beginning, in order, in volumes
	// that are not Devices: at least one. They are valid until the device is written.
	Locate(ctx context.Context, off, length int64) ([]offload.Piece, error)
	// Map maps [src, src+length) of the snapshot to [dst, dst+length). It returns the
	// number of bytes mapped, contiguous from dst: at least one, and possibly fewer
	// than length without an error.
	Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error)
	// Backing returns the volumes at the bottom.
	Backing() []blockdev.Volume
}

// Records store the state of views durably.
type Records interface {
	PutRecords(ctx context.Context, recs ...backstore.Record) error
	// GetRecord returns backstore.ErrNotFound for an absent key.
	GetRecord(key []byte) ([]byte, error)
	ScanRecords(prefix []byte, fn func(key, value []byte) error) error
	Flush(ctx context.Context) error
}

// base is a volume at the bottom.
type base struct {
	blockdev.Volume
	engine *offload.Engine
}

// Base returns v as a Device.
func Base(e *offload.Engine, v blockdev.Volume) Device { return base{v, e} }

func (b base) Locate(_ context.Context, off, length int64) ([]offload.Piece, error) {
	return []offload.Piece{{Volume: b.Volume, Offset: off, Length: length}}, nil
}

func (b base) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	return b.engine.MapTo(ctx, b.Volume, dst, s, src, length)
}

func (b base) Backing() []blockdev.Volume { return []blockdev.Volume{b.Volume} }

// MaxPieces is the maximum number of pieces of one offload read. For a stripe with a
// unit of 64 KiB it limits a token to 1 GiB.
const MaxPieces = 1 << 14

// inner adapts a Device to offload.View. The caller excludes writers.
type inner struct{ Device }

// Pieces implements offload.View.
func (d inner) Pieces(ctx context.Context, ranges []blockdev.Range, take func([]offload.Piece) error) error {
	var pieces []offload.Piece
	for _, r := range ranges {
		for done := int64(0); done < r.Length && len(pieces) < MaxPieces; {
			more, err := d.Locate(ctx, r.Offset+done, r.Length-done)
			if err != nil {
				return err
			}
			if room := MaxPieces - len(pieces); len(more) > room {
				more = more[:room]
			}
			for _, p := range more {
				done += p.Length
			}
			pieces = append(pieces, more...)
		}
	}
	return take(pieces)
}

// Gate excludes writers from the views that share volumes while an offload read locates
// bytes, so that a token is a point-in-time view of several volumes.
type Gate struct {
	sem *semaphore.Weighted
	// maxWait bounds the wait for writes that are under way, since later ones wait
	// for its end.
	maxWait time.Duration
}

// gateMaxWait is the maxWait of a gate.
const gateMaxWait = 2 * time.Second

// NewGate returns a gate that is open.
func NewGate() Gate { return Gate{semaphore.NewWeighted(math.MaxInt64), gateMaxWait} }

func (g Gate) enter(ctx context.Context) error { return g.sem.Acquire(ctx, 1) }
func (g Gate) leave()                          { g.sem.Release(1) }
func (g Gate) open()                           { g.sem.Release(math.MaxInt64) }

// shut waits until no write is under way, and keeps later ones out. It returns
// blockdev.ErrBusy where a write takes too long.
func (g Gate) shut(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, g.maxWait)
	defer cancel()
	err := g.sem.Acquire(limited, math.MaxInt64)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: a write below the view takes long", blockdev.ErrBusy)
	}
	return err
}

// Stack serves a Device as a volume and an offload.View. Until a write whose context
// has ended returns from the bottom, reads and writes of its range return
// blockdev.ErrBusy.
type Stack struct {
	inner
	gate   Gate
	writes fence.Writes
}

// NewStack returns d as a volume. Stacks over the same volumes share a gate.
func NewStack(d Device, g Gate) *Stack { return &Stack{inner: inner{d}, gate: g} }

// check returns an error for a range outside the view, and for one with an aborted
// write in progress.
func (s *Stack) check(off, length int64) error {
	if size := s.Size(); !(blockdev.Range{Offset: off, Length: length}).In(size) {
		return fmt.Errorf("%w: view of %d bytes, access of %d bytes at %d", blockdev.ErrRange, size, length, off)
	}
	return s.writes.Check(off, length)
}

// ReadAt implements Volume.
func (s *Stack) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.check(off, int64(len(p))); err != nil {
		return err
	}
	return s.Device.ReadAt(ctx, p, off)
}

// change calls fn, which writes to the range, as a writer of the gate.
func (s *Stack) change(ctx context.Context, off, length int64, fn func(ctx context.Context) error) error {
	if err := s.check(off, length); err != nil {
		return err
	}
	return withMemory(ctx, s.Device, off, length, func(ctx context.Context) error {
		return s.changeHeld(ctx, off, length, fn)
	})
}

// changeHeld is change with the memory of copies that fn takes.
func (s *Stack) changeHeld(ctx context.Context, off, length int64, fn func(ctx context.Context) error) error {
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	slot, err := s.writes.Begin(ctx, off, length)
	if err != nil {
		return err
	}
	defer s.writes.End(slot)
	return fn(ctx)
}

// WriteAt implements Volume.
func (s *Stack) WriteAt(ctx context.Context, p []byte, off int64) error {
	return s.change(ctx, off, int64(len(p)), func(ctx context.Context) error { return s.Device.WriteAt(ctx, p, off) })
}

// Unmap implements Volume.
func (s *Stack) Unmap(ctx context.Context, off, length int64) error {
	return s.change(ctx, off, length, func(ctx context.Context) error { return s.Device.Unmap(ctx, off, length) })
}

// Map implements offload.View.
func (s *Stack) Map(ctx context.Context, dst int64, from offload.Snapshot, src, length int64) (n int64, err error) {
	err = s.change(ctx, dst, length, func(ctx context.Context) (err error) {
		n, err = s.Device.Map(ctx, dst, from, src, length)
		return err
	})
	return n, err
}

// Pieces implements offload.View.
func (s *Stack) Pieces(ctx context.Context, ranges []blockdev.Range, take func([]offload.Piece) error) error {
	for _, r := range ranges {
		if err := s.check(r.Offset, r.Length); err != nil {
			return err
		}
	}
	if err := s.gate.shut(ctx); err != nil {
		return err
	}
	defer s.gate.open()
	return s.inner.Pieces(ctx, ranges, take)
}

// CompareAndWrite writes p at off if the range is equal to compare and returns -1,
// otherwise the index of the first byte that differs. It is atomic with respect to
// other writes.
func (s *Stack) CompareAndWrite(ctx context.Context, compare, p []byte, off int64) (mismatch int, err error) {
	err = s.update(ctx, off, len(p), func(data []byte) bool {
		for i := range data {
			if data[i] != compare[i] {
				mismatch = i
				return false
			}
		}
		copy(data, p)
		mismatch = -1
		return true
	})
	return mismatch, err
}

// Update calls fn to change the length bytes at off in place. It is atomic with respect
// to other writes.
func (s *Stack) Update(ctx context.Context, off int64, length int, fn func(data []byte)) error {
	return s.update(ctx, off, length, func(data []byte) bool {
		fn(data)
		return true
	})
}

func (s *Stack) update(ctx context.Context, off int64, length int, fn func(data []byte) bool) error {
	if err := s.check(off, int64(length)); err != nil {
		return err
	}
	return withMemory(ctx, s.Device, off, int64(length), func(ctx context.Context) error {
		return s.updateAlone(ctx, off, length, fn)
	})
}

// updateAlone is update with the memory of copies that it takes.
func (s *Stack) updateAlone(ctx context.Context, off int64, length int, fn func(data []byte) bool) error {
	if err := s.gate.shut(ctx); err != nil {
		return err
	}
	defer s.gate.open()
	slot, err := s.writes.Begin(ctx, off, int64(length))
	if err != nil {
		return err
	}
	defer s.writes.End(slot)
	data := make([]byte, length)
	if err := s.Device.ReadAt(ctx, data, off); err != nil || !fn(data) {
		return err
	}
	return s.Device.WriteAt(ctx, data, off)
}
