package vhdxfile

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/vhd/disk"
)

// journal is where the log is written.
type journal struct {
	// id names the log; zero as long as it is not used.
	id disk.GUID
	// head is where the next entry goes, tail the oldest entry whose updates may not
	// be in the file after a crash; bytes from the start of the log.
	head, tail int64
	sequence   uint64 // of the last entry
	// length is how much of the log is used, bytes: all, but in tests.
	length int64
}

// writable returns why the file cannot be changed.
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

// begin makes the headers say that the file, and perhaps its payload, is not what
// it was when it was opened (MS-VHDX 2.2.2).
func (f *File) begin(ctx context.Context, payload bool) error {
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

// barrier is Container.Barrier, after which the file keeps its length, too.
func (f *File) barrier(ctx context.Context) error {
	if err := f.c.Barrier(ctx); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	f.flushed = f.view.size
	return nil
}

// commit makes at most maxSectors updates in one step. Without an error they are in
// the file, or in the log, from where they get there.
func (f *File) commit(ctx context.Context, pieces []piece) error {
	if err := f.writable(ctx); err != nil {
		return err
	}
	// The steps belong together, whatever the caller is waiting for.
	ctx = context.WithoutCancel(ctx)
	if err := f.begin(ctx, false); err != nil {
		return err
	}
	// Of the entry before, if there was an error then.
	if err := f.apply(ctx); err != nil {
		return err
	}
	next, renewed := f.log, false
	length := int64(sectorLength * (1 + len(pieces)))
	if next.id == (disk.GUID{}) || next.head+length > next.length {
		// What the log has is needed no more. The headers say so before any of it is
		// overwritten, and name the new log when its first entry is there: whatever log
		// they name has a valid sequence.
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
			// A header may name the new log: the old one is not good for anything now.
			f.log = journal{sequence: next.sequence, length: next.length}
		}
		return fmt.Errorf("write the log: %w", err)
	}
	next.tail, next.head = next.head, next.head+length
	f.log, f.view.pieces = next, pieces
	// The entry counts, so the change is made. Where this fails it is tried again
	// before the next one.
	_ = f.apply(ctx)
	return nil
}

// write writes an entry, and names its log in the headers if it is the first one.
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

// retract makes sure that an entry which was perhaps written is not replayed: from
// now on others rely on the change not having been made. It unmaps, for that works
// in a store that is full, too.
func (f *File) retract(ctx context.Context, at region) {
	err := f.c.Unmap(ctx, at.offset, at.length)
	if err == nil {
		err = f.barrier(ctx)
	}
	if err != nil {
		f.broken = fmt.Errorf("the virtual disk must be opened again before it can be changed, since its log could not be repaired: %w", err)
	}
}

// apply writes the updates that the log holds to where they belong.
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

// empty says that the log holds nothing, once all of it is applied.
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
	return f.begin(context.WithoutCancel(ctx), true)
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
