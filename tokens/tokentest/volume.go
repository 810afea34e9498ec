package tokentest

import (
	"bytes"
	"context"
	"fmt"

	"odx/backstore"
	"odx/tokens"
)

// Volume is a volume of a Store; it implements tokens.AddressSpace and
// scsi.Volume. Dumb hides all but reading and writing.
type Volume struct {
	store *Store
	data  []byte // guarded by store.mu
}

// Size implements tokens.Volume.
func (v *Volume) Size() int64 { return int64(len(v.data)) }

// ReadAt implements tokens.Volume.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if err := check(ctx, v.data, off, int64(len(p))); err != nil {
		return err
	}
	copy(p, v.data[off:])
	return nil
}

// WriteAt implements tokens.Volume.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := v.store.fail(ctx, "WriteAt"); err != nil {
		return err
	}
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if err := check(ctx, v.data, off, int64(len(p))); err != nil {
		return err
	}
	copy(v.data[off:], p)
	return nil
}

// Unmap implements tokens.Volume.
func (v *Volume) Unmap(ctx context.Context, off, length int64) error {
	if err := v.store.fail(ctx, "Unmap"); err != nil {
		return err
	}
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if err := check(ctx, v.data, off, length); err != nil {
		return err
	}
	clear(v.data[off : off+length])
	return nil
}

// Flush implements scsi.Volume.
func (v *Volume) Flush(ctx context.Context) error { return v.store.Flush(ctx) }

// Snapshot implements tokens.AddressSpace.
func (v *Volume) Snapshot(ctx context.Context, ranges []backstore.Range, recs func(uint64) []backstore.Record) (tokens.Snapshot, error) {
	if err := v.store.fail(ctx, "Snapshot"); err != nil {
		return nil, err
	}
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var data bytes.Buffer
	for _, r := range ranges {
		if err := check(ctx, v.data, r.Offset, r.Length); err != nil {
			return nil, err
		}
		data.Write(v.data[r.Offset : r.Offset+r.Length])
	}
	s.now.next++
	id := s.now.next
	s.now.snapshots[id] = data.Bytes()
	s.put(recs(id))
	s.open++
	return &snapshot{store: s, id: id, data: data.Bytes()}, nil
}

// Map implements tokens.AddressSpace.
func (v *Volume) Map(ctx context.Context, dst int64, s tokens.Snapshot, src, length int64) (int64, error) {
	if err := v.store.fail(ctx, "Map"); err != nil {
		return 0, err
	}
	snap, ok := s.(*snapshot)
	if !ok || snap.store != v.store {
		return 0, fmt.Errorf("%w: snapshot of another store", backstore.ErrInvalid)
	}
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if err := check(ctx, v.data, dst, length); err != nil {
		return 0, err
	}
	if err := check(ctx, snap.data, src, length); err != nil {
		return 0, err
	}
	if v.store.MapLength > 0 {
		length = min(length, v.store.MapLength)
	}
	copy(v.data[dst:dst+length], snap.data[src:])
	return length, nil
}

// Dumb is a volume that no store knows: a plain backing file, say.
type Dumb struct {
	tokens.Volume
	// BlockLength, if set, is the alignment that every access must have.
	BlockLength int64
}

// Flush implements scsi.Volume.
func (d Dumb) Flush(context.Context) error { return nil }

// ReadAt implements tokens.Volume.
func (d Dumb) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	return d.Volume.ReadAt(ctx, p, off)
}

// WriteAt implements tokens.Volume.
func (d Dumb) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	return d.Volume.WriteAt(ctx, p, off)
}

// Unmap implements tokens.Volume.
func (d Dumb) Unmap(ctx context.Context, off, length int64) error {
	if err := d.check(off, length); err != nil {
		return err
	}
	return d.Volume.Unmap(ctx, off, length)
}

func (d Dumb) check(off, length int64) error {
	if bl := d.BlockLength; bl > 0 && (off%bl != 0 || length%bl != 0) {
		return fmt.Errorf("%w: %d bytes at %d are not whole blocks of %d", backstore.ErrInvalid, length, off, bl)
	}
	return nil
}
