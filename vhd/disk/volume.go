package disk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"odx/blockdev"
	"odx/offload"
)

// Config configures a Disk.
type Config struct {
	Table Table
	// Reader has the payload. If it is a Container, the disk is writable.
	Reader blockdev.Reader
	// Engine maps payload. It is nil for a disk that is only read.
	Engine *offload.Engine
	// Parent is the parent of a differencing disk. If it is nil, absent sectors read as
	// zeros.
	Parent *Disk
}

// Disk is an open virtual disk as a volume. It is safe for concurrent use. If its
// container is a volume, it is a view.Device.
type Disk struct {
	table    Table
	reader   blockdev.Reader
	c        Container // nil: read-only
	engine   *offload.Engine
	parent   *Disk
	geometry Geometry

	// gate is locked shared to read and write bytes of allocated blocks, exclusively to
	// change the table.
	gate *semaphore.Weighted
	// changed is set after Table.Changing.
	changed atomic.Bool
}

// New returns a disk over a table, which the Disk then owns.
func New(c Config) *Disk {
	d := &Disk{
		table: c.Table, reader: c.Reader, engine: c.Engine, parent: c.Parent,
		geometry: c.Table.Info().Geometry, gate: semaphore.NewWeighted(math.MaxInt64),
	}
	d.c, _ = c.Reader.(Container)
	return d
}

// Info describes the disk.
func (d *Disk) Info() Info { return d.table.Info() }

// Table returns the disk's table. The caller must have exclusive use of the disk.
func (d *Disk) Table() Table { return d.table }

// Parent returns the parent of a differencing disk, or nil.
func (d *Disk) Parent() *Disk { return d.parent }

// Size returns the capacity in bytes.
func (d *Disk) Size() int64 { return d.geometry.Size }

// Flush makes all previous writes durable.
func (d *Disk) Flush(ctx context.Context) error {
	if d.c == nil {
		return nil
	}
	return d.c.Flush(ctx)
}

// Close writes the state of an orderly close to the file, durably.
func (d *Disk) Close(ctx context.Context) error {
	if err := d.gate.Acquire(ctx, math.MaxInt64); err != nil {
		return err
	}
	defer d.gate.Release(math.MaxInt64)
	err := d.table.Close(ctx)
	if d.c != nil {
		err = errors.Join(err, d.c.Flush(ctx))
	}
	return err
}

// span is the part of a range in one block.
type span struct {
	block  int64
	off    int64 // in the block
	length int64
	done   int64 // bytes of the range before the span
}

// span returns the span of [off, off+length) that starts at byte done of the range.
func (d *Disk) span(off, length, done int64) span {
	at := off + done
	s := span{block: at / d.geometry.BlockLength, off: at % d.geometry.BlockLength, done: done}
	s.length = min(length-done, d.geometry.BlockLength-s.off)
	return s
}

func (d *Disk) check(off, length int64) error {
	if size := d.Size(); !(blockdev.Range{Offset: off, Length: length}).In(size) {
		return fmt.Errorf("%w: virtual disk of %d bytes, access of %d bytes at %d", blockdev.ErrRange, size, length, off)
	}
	return nil
}

// ReadAt fills p with the bytes at off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	if err := d.gate.Acquire(ctx, 1); err != nil {
		return err
	}
	defer d.gate.Release(1)
	for done := int64(0); done < int64(len(p)); {
		s := d.span(off, int64(len(p)), done)
		if err := d.readSpan(ctx, p[done:done+s.length], s, off+done); err != nil {
			return err
		}
		done += s.length
	}
	return nil
}

// readSpan reads a span. at is its offset on the disk.
func (d *Disk) readSpan(ctx context.Context, p []byte, s span, at int64) error {
	b, err := d.table.Block(ctx, s.block)
	if err != nil {
		return blockdev.Unreadable(err, at)
	}
	switch b.State {
	case Full:
		return d.readPayload(ctx, p, b.Offset+s.off, at)
	case Zero:
		clear(p)
		return nil
	case Absent:
		return d.readBelow(ctx, p, at)
	default:
		return d.presence(ctx, s, func(set bool, from, n int64) error {
			if set {
				return d.readPayload(ctx, p[from:from+n], b.Offset+s.off+from, at+from)
			}
			return d.readBelow(ctx, p[from:from+n], at+from)
		})
	}
}

// readPayload reads bytes that are at off in the container and at byte at of the disk.
func (d *Disk) readPayload(ctx context.Context, p []byte, off, at int64) error {
	return blockdev.Translate(d.reader.ReadAt(ctx, p, off), at-off)
}

// readBelow reads absent bytes from the parent, or zeros.
func (d *Disk) readBelow(ctx context.Context, p []byte, at int64) error {
	here := int64(0)
	if d.parent != nil {
		// A parent can be shorter. Bytes past its end are zeros.
		here = min(max(d.parent.Size()-at, 0), int64(len(p)))
	}
	clear(p[here:])
	if here == 0 {
		return nil
	}
	return d.parent.ReadAt(ctx, p[:here], at)
}

// presence calls fn with the parts of a span of a Partial block: set reports that the
// sectors are in the container. from is relative to the span's first byte.
func (d *Disk) presence(ctx context.Context, s span, fn func(set bool, from, n int64) error) error {
	sector := d.geometry.SectorLength
	first := s.off / sector
	count := (s.off+s.length+sector-1)/sector - first
	bits, err := d.table.Present(ctx, s.block, first, count)
	if err != nil {
		return blockdev.Unreadable(err, s.block*d.geometry.BlockLength+s.off)
	}
	for i := int64(0); i < count; {
		set, n := bits.Run(i, count)
		from := max((first+i)*sector-s.off, 0)
		to := min((first+i+n)*sector-s.off, s.length)
		if err := fn(set, from, to-from); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// WriteAt writes p at off.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	_, err := d.change(ctx, off, int64(len(p)), func(s span, at int64) (int64, error) {
		if err := d.c.WriteAt(ctx, p[s.done:s.done+s.length], at); err != nil {
			return 0, err
		}
		return s.length, nil
	})
	return err
}

// Map maps [src, src+length) of the snapshot to [dst, dst+length). It returns the
// number of bytes mapped, contiguous from dst: at least one, and fewer than length
// without an error if ctx asks it to stop (blockdev.Late).
func (d *Disk) Map(ctx context.Context, dst int64, from offload.Snapshot, src, length int64) (int64, error) {
	return d.change(ctx, dst, length, func(s span, at int64) (int64, error) {
		if s.done > 0 && blockdev.Late(ctx) {
			return 0, nil
		}
		for done := int64(0); done < s.length; {
			n, err := d.engine.MapTo(ctx, d.c, at+done, from, src+s.done+done, s.length-done)
			if err != nil {
				return done, err
			}
			done += n
		}
		return s.length, nil
	})
}

// change calls payload for each span of a range with its offset in the container, and
// returns the bytes done. It stops if payload does 0 bytes of a span. Spans of
// allocated sectors are changed concurrently with other calls, the others with the gate
// locked exclusively.
func (d *Disk) change(ctx context.Context, off, length int64, payload func(s span, at int64) (int64, error)) (done int64, err error) {
	if err := d.check(off, length); err != nil {
		return 0, err
	}
	if d.c == nil {
		return 0, blockdev.ErrReadOnly
	}
	for done < length {
		n, err := d.changeInPlace(ctx, off, length, done, payload)
		done += n
		if err != nil {
			return done, err
		}
		if done == length {
			break
		}
		n, err = d.changeExclusive(ctx, d.span(off, length, done), payload)
		done += n
		if err != nil || n == 0 {
			return done, err
		}
	}
	return done, nil
}

// changeInPlace continues from byte done of a range until a span needs a change of the
// table, and returns the bytes done.
func (d *Disk) changeInPlace(ctx context.Context, off, length, done int64, payload func(s span, at int64) (int64, error)) (int64, error) {
	if err := d.gate.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer d.gate.Release(1)
	began := done
	for done < length && d.changed.Load() {
		s := d.span(off, length, done)
		b, err := d.table.Block(ctx, s.block)
		if err != nil {
			return done - began, err
		}
		if b.State == Partial {
			all := true
			if err := d.presence(ctx, s, func(set bool, _, _ int64) error { all = all && set; return nil }); err != nil {
				return done - began, err
			}
			if !all {
				break
			}
		} else if b.State != Full {
			break
		}
		n, err := payload(s, b.Offset+s.off)
		done += n
		if err != nil {
			return done - began, err
		}
		if n == 0 {
			break
		}
	}
	return done - began, nil
}

// changeExclusive changes a span with the gate locked exclusively, and allocates its block
// if needed.
func (d *Disk) changeExclusive(ctx context.Context, s span, payload func(s span, at int64) (int64, error)) (int64, error) {
	if err := d.gate.Acquire(ctx, math.MaxInt64); err != nil {
		return 0, err
	}
	defer d.gate.Release(math.MaxInt64)
	if err := d.changing(ctx); err != nil {
		return 0, err
	}
	b, err := d.table.Block(ctx, s.block)
	if err != nil {
		return 0, err
	}
	if b.State == Absent || b.State == Zero {
		if err := d.table.Allocate(ctx, []int64{s.block}); err != nil {
			return 0, err
		}
		if b, err = d.table.Block(ctx, s.block); err != nil {
			return 0, err
		}
	}
	if b.State == Full {
		return payload(s, b.Offset+s.off)
	}
	if err := d.fillEdges(ctx, s, b); err != nil {
		return 0, err
	}
	n, err := payload(s, b.Offset+s.off)
	if err != nil || n == 0 {
		return 0, err // without its bits, nothing of it is in the disk
	}
	sector := d.geometry.SectorLength
	first := s.off / sector
	return n, d.table.SetPresent(ctx, s.block, first, (s.off+s.length+sector-1)/sector-first)
}

// changing calls Table.Changing once. The gate is locked exclusively.
func (d *Disk) changing(ctx context.Context) error {
	if d.changed.Load() {
		return nil
	}
	if err := d.table.Changing(ctx); err != nil {
		return err
	}
	d.changed.Store(true)
	return nil
}

// Reserve allocates Absent and Zero blocks in one change of the table, before they are
// written or mapped.
func (d *Disk) Reserve(ctx context.Context, blocks []int64) error {
	if len(blocks) == 0 {
		return nil
	}
	if err := d.gate.Acquire(ctx, math.MaxInt64); err != nil {
		return err
	}
	defer d.gate.Release(math.MaxInt64)
	if err := d.changing(ctx); err != nil {
		return err
	}
	return d.table.Allocate(ctx, blocks)
}

// fillEdges copies the parent's data to the absent sectors of a Partial block that a
// change covers partly.
func (d *Disk) fillEdges(ctx context.Context, s span, b Block) error {
	sector := d.geometry.SectorLength
	end := s.off + s.length
	for _, edge := range []int64{s.off, end} {
		if edge%sector == 0 {
			continue
		}
		first := edge / sector
		bits, err := d.table.Present(ctx, s.block, first, 1)
		if err != nil {
			return err
		}
		if bits.Get(0) {
			continue
		}
		data := make([]byte, sector)
		if err := d.readBelow(ctx, data, s.block*d.geometry.BlockLength+first*sector); err != nil {
			return err
		}
		if err := d.c.WriteAt(ctx, data, b.Offset+first*sector); err != nil {
			return err
		}
	}
	return nil
}

// Unmap makes a range read as zeros and frees its space. If the format allows it, whole
// blocks are removed from the file.
func (d *Disk) Unmap(ctx context.Context, off, length int64) error {
	if err := d.check(off, length); err != nil {
		return err
	}
	if d.c == nil {
		return blockdev.ErrReadOnly
	}
	first := (off + d.geometry.BlockLength - 1) / d.geometry.BlockLength
	end := (off + length) / d.geometry.BlockLength
	if off+length == d.Size() {
		end = d.geometry.Blocks()
	}
	if first >= end {
		return d.unmapParts(ctx, off, length)
	}
	if head := first*d.geometry.BlockLength - off; head > 0 {
		if err := d.unmapParts(ctx, off, head); err != nil {
			return err
		}
	}
	if err := d.free(ctx, first, end); err != nil {
		return err
	}
	if rest := off + length - end*d.geometry.BlockLength; rest > 0 {
		return d.unmapParts(ctx, end*d.geometry.BlockLength, rest)
	}
	return nil
}

// free frees whole blocks.
func (d *Disk) free(ctx context.Context, first, end int64) error {
	if err := d.gate.Acquire(ctx, math.MaxInt64); err != nil {
		return err
	}
	defer d.gate.Release(math.MaxInt64)
	var blocks []int64
	for i := first; i < end; i++ {
		empty, err := d.isEmpty(ctx, i)
		if err != nil {
			return err
		}
		if !empty {
			blocks = append(blocks, i)
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	if err := d.changing(ctx); err != nil {
		return err
	}
	return d.table.Free(ctx, blocks)
}

// isEmpty reports whether block i reads as zeros and is not allocated. The gate is
// locked.
func (d *Disk) isEmpty(ctx context.Context, i int64) (bool, error) {
	b, err := d.table.Block(ctx, i)
	return b.State == Zero || b.State == Absent && d.table.Info().Kind != Differencing, err
}

// unmapParts unmaps partial blocks.
func (d *Disk) unmapParts(ctx context.Context, off, length int64) error {
	for done := int64(0); done < length; {
		s := d.span(off, length, done)
		if err := d.gate.Acquire(ctx, 1); err != nil {
			return err
		}
		empty, err := d.isEmpty(ctx, s.block)
		d.gate.Release(1)
		if err != nil {
			return err
		}
		if !empty {
			_, err := d.change(ctx, off+done, s.length, func(s span, at int64) (int64, error) {
				if err := d.c.Unmap(ctx, at, s.length); err != nil {
					return 0, err
				}
				return s.length, nil
			})
			if err != nil {
				return err
			}
		}
		done += s.length
	}
	return nil
}
