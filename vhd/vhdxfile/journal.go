package vhdxfile

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/vhd/disk"
)

// journal is the write position in the log.
type journal struct {
	// id is the log's identifier, zero while it is not used.
	id disk.GUID
	// head is the offset of the next entry, tail that of the oldest entry whose updates
	// may not be durable; in bytes from the start of the log.
	head, tail int64
	sequence   uint64 // of the last entry
	// length is the used length of the log in bytes: all of it, except in tests.
	length int64
}

// writable returns why the file cannot be changed, or nil.
func (f *File) writable(ctx context.Context) error {
	switch {
	case f.c == nil:
		return blockdev.ErrReadOnly
	case f.closed:
		return errClosed
	case f.broken != nil:
		return f.broken
	}
	return ctx.Err()
}

// markChanged changes the identifiers in the headers before the first change of the
// file, and of its payload if payload is set (MS-VHDX 2.2.2).
func (f *File) markChanged(ctx context.Context, payload bool) error {
	if f.wrote && (f.changed || !payload) {
		return nil
	}
	err := f.headers.update(ctx, f.c, func(h *header) {
		if !f.wrote {
			h.fileWrite = newGUID()
		}
		if payload {
			h.dataWrite = newGUID()
		}
	})
	if err != nil {
		return err
	}
	f.wrote, f.changed = true, f.changed || payload
	return nil
}

// barrier is Container.Barrier. Afterwards the length of the file is durable too.
func (f *File) barrier(ctx context.Context) error {
	if err := f.c.Barrier(ctx); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	f.flushed = f.view.size
	return nil
}

// commit makes at most maxSectors updates in one step. Without an error they are in the
// file, or in the log from which they are applied.
func (f *File) commit(ctx context.Context, pieces []piece) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	// The steps belong together, so cancellation is ignored.
	ctx = context.WithoutCancel(ctx)
	if err := f.markChanged(ctx, false); err != nil {
		return err
	}
	// Apply the previous entry again, if that failed.
	if err := f.apply(ctx); err != nil {
		return err
	}
	next, renewed := f.log, false
	length := int64(sectorLength * (1 + len(pieces)))
	if next.id == (disk.GUID{}) || next.head+length > next.length {
		// The log is no longer needed. The headers say so before any of it is
		// overwritten, and refer to the new log when its first entry is written: a log
		// that they refer to always has a valid sequence.
		if f.headers.log != (disk.GUID{}) {
			if err := f.empty(ctx); err != nil {
				return err
			}
		}
		next, renewed = journal{id: newGUID(), sequence: next.sequence, length: next.length}, true
	}
	next.sequence++
	e := logEntry{
		tail: uint32(next.tail), sequence: next.sequence, log: next.id, pieces: pieces,
		flushed: uint64(f.flushed &^ (mib - 1)), last: uint64(roundUp(f.view.size, mib)),
	}
	if err := f.write(ctx, e, next.head, renewed); err != nil {
		f.retract(ctx, region{int64(f.headers.logOffset) + next.head, length})
		if renewed {
			// A header may refer to the new log, so the old one cannot be used.
			f.log = journal{sequence: next.sequence, length: next.length}
		}
		return fmt.Errorf("write the log: %w", err)
	}
	next.tail, next.head = next.head, next.head+length
	f.log, f.view.pieces = next, pieces
	// The entry is valid, so the change is made. If applying it fails, it is retried
	// before the next entry.
	_ = f.apply(ctx)
	return nil
}

// write writes an entry, and sets its log in the headers if it is the first one.
func (f *File) write(ctx context.Context, e logEntry, at int64, first bool) error {
	if err := f.c.WriteAt(ctx, e.encode(), int64(f.headers.logOffset)+at); err != nil {
		return err
	}
	if err := f.barrier(ctx); err != nil {
		return err
	}
	if !first {
		return nil
	}
	return f.headers.update(ctx, f.c, func(h *header) { h.log, h.logVersion = e.log, 0 })
}

// retract ensures that an entry that may have been written is not replayed, since later
// changes rely on the change not having been made. It uses Unmap, which works in a full
// store too.
func (f *File) retract(ctx context.Context, at region) {
	err := f.c.Unmap(ctx, at.offset, at.length)
	if err == nil {
		err = f.barrier(ctx)
	}
	if err != nil {
		f.broken = fmt.Errorf("virtual disk must be reopened before further changes: repair of its log failed: %w", err)
	}
}

// apply writes the updates in the log to their destinations.
func (f *File) apply(ctx context.Context) error {
	for rest := f.view.pieces; len(rest) > 0; {
		p := rest[0]
		if p.data == nil {
			if err := f.c.Unmap(ctx, p.offset, p.length); err != nil {
				return fmt.Errorf("apply the log at %d: %w", p.offset, err)
			}
			rest = rest[1:]
			continue
		}
		data, n := p.data, 1
		for ; n < len(rest) && n < maxSectors && rest[n].data != nil && rest[n].offset == rest[n-1].end(); n++ {
			data = append(data[:len(data):len(data)], rest[n].data...)
		}
		if err := f.c.WriteAt(ctx, data, p.offset); err != nil {
			return fmt.Errorf("apply the log at %d: %w", p.offset, err)
		}
		rest = rest[n:]
	}
	f.view.pieces = nil
	return nil
}

// empty marks the log empty, after all of it is applied.
func (f *File) empty(ctx context.Context) error {
	if err := f.barrier(ctx); err != nil {
		return err
	}
	if err := f.headers.update(ctx, f.c, func(h *header) { h.log = disk.GUID{} }); err != nil {
		return err
	}
	f.log.id = disk.GUID{}
	return nil
}

// Changing implements disk.Table.
func (f *File) Changing(ctx context.Context) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	return f.markChanged(context.WithoutCancel(ctx), true)
}

// Close implements disk.Table.
func (f *File) Close(ctx context.Context) error {
	defer f.Release()
	if f.c == nil || f.closed {
		f.closed = true
		return nil
	}
	if err := f.writable(ctx); err != nil {
		return err
	}
	if f.headers.log != (disk.GUID{}) {
		if err := f.apply(ctx); err != nil {
			return err
		}
		if err := f.empty(ctx); err != nil {
			return err
		}
	}
	if f.wrote {
		if err := f.c.Flush(ctx); err != nil {
			return err
		}
	}
	f.closed = true
	return nil
}
