package offloadtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// Volume is a volume of a Store; it implements offload.Object and blockdev.Volume.
// Foreign hides all but reading and writing.
type Volume struct {
	store *Store
	id    [16]byte
	name  string

	// Guarded by store.mu.
	data    []byte
	deleted bool
	watches []*watch
}

// Name implements offload.Object.
func (v *Volume) Name() string { return v.name }

// ID implements offload.Object.
func (v *Volume) ID() [16]byte { return v.id }

// Size implements blockdev.Volume.
func (v *Volume) Size() int64 { return int64(len(v.data)) }

// ReadAt implements blockdev.Volume.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if err := check(ctx, v.data, off, int64(len(p))); err != nil {
		return err
	}
	copy(p, v.data[off:])
	return nil
}

// WriteAt implements blockdev.Volume.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := v.store.fail(ctx, "WriteAt"); err != nil {
		return err
	}
	return v.change(ctx, off, int64(len(p)), func() error {
		copy(v.data[off:], p)
		return nil
	})
}

// Unmap implements blockdev.Volume.
func (v *Volume) Unmap(ctx context.Context, off, length int64) error {
	if err := v.store.fail(ctx, "Unmap"); err != nil {
		return err
	}
	return v.change(ctx, off, length, func() error {
		clear(v.data[off : off+length])
		return nil
	})
}

// Flush implements blockdev.Volume.
func (v *Volume) Flush(ctx context.Context) error { return v.store.Flush(ctx) }

// Snapshot implements offload.Object.
func (v *Volume) Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record) (offload.Snapshot, error) {
	return v.snapshot(ctx, ranges, recs, func() error { return nil })
}

func (v *Volume) snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record, refuse func() error) (offload.Snapshot, error) {
	if err := v.store.fail(ctx, "Snapshot"); err != nil {
		return nil, err
	}
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := refuse(); err != nil {
		return nil, err
	}
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
	s.now.origins[id] = origin{v.id, slices.Clone(ranges)}
	s.put(recs(id))
	s.open++
	return &snapshot{store: s, id: id, data: data.Bytes()}, nil
}

// Map implements offload.Object.
func (v *Volume) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	if err := v.store.fail(ctx, "Map"); err != nil {
		return 0, err
	}
	snap, ok := s.(*snapshot)
	if !ok || snap.store != v.store {
		return 0, fmt.Errorf("%w: snapshot of another store", blockdev.ErrInvalid)
	}
	if err := check(ctx, snap.data, src, length); err != nil {
		return 0, err
	}
	if err := v.check(ctx, dst, length); err != nil {
		return 0, err
	}
	if most := v.store.mapLength.Load(); most > 0 {
		length = min(length, most)
	}
	err := v.change(ctx, dst, length, func() error {
		copy(v.data[dst:dst+length], snap.data[src:])
		return nil
	})
	if err != nil {
		return 0, err
	}
	return length, nil
}

func (v *Volume) check(ctx context.Context, off, length int64) error {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	return check(ctx, v.data, off, length)
}

// change changes a range after it has notified the watches over it.
func (v *Volume) change(ctx context.Context, off, length int64, change func() error) error {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	for w := v.watching(off, length); w != nil; w = v.watching(off, length) {
		v.store.mu.Unlock()
		err := w.notify(ctx)
		v.store.mu.Lock()
		if err != nil {
			return err
		}
	}
	if v.deleted {
		return backstore.ErrNotFound
	}
	if err := check(ctx, v.data, off, length); err != nil {
		return err
	}
	return change()
}

// watch implements offload.Watch.
type watch struct {
	volume   *Volume
	ranges   []blockdev.Range
	changing func(context.Context) error
	notice   sync.Mutex // held while changing runs
	over     bool       // guarded by store.mu
}

// Watch implements offload.Object.
func (v *Volume) Watch(ctx context.Context, ranges []blockdev.Range, recs []backstore.Record, changing func(context.Context) error) (offload.Watch, error) {
	if err := v.store.fail(ctx, "Watch"); err != nil {
		return nil, err
	}
	w := &watch{volume: v, ranges: ranges, changing: changing}
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	for _, r := range ranges {
		if err := check(ctx, v.data, r.Offset, r.Length); err != nil {
			return nil, err
		}
	}
	if len(v.watches) >= backstore.MaxWatches {
		return nil, backstore.ErrTooMany
	}
	v.watches = append(v.watches, w)
	v.store.put(recs)
	return w, nil
}

// Snapshot implements offload.Watch.
func (w *watch) Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record) (offload.Snapshot, error) {
	return w.volume.snapshot(ctx, ranges, recs, func() error {
		if w.over {
			return backstore.ErrChanged
		}
		return nil
	})
}

// Stop implements offload.Watch.
func (w *watch) Stop() {
	w.volume.store.mu.Lock()
	defer w.volume.store.mu.Unlock()
	w.over = true
	w.volume.watches = slices.DeleteFunc(w.volume.watches, func(x *watch) bool { return x == w })
}

func (w *watch) notify(ctx context.Context) error {
	w.notice.Lock()
	defer w.notice.Unlock()
	w.volume.store.mu.Lock()
	over := w.over
	w.volume.store.mu.Unlock()
	if over {
		return nil
	}
	if err := w.changing(ctx); err != nil {
		return err
	}
	w.Stop()
	return nil
}

// watching returns a watch over blocks of a range, nil if there is none.
// store.mu is held.
func (v *Volume) watching(off, length int64) *watch {
	const block = blockdev.BlockLength
	if length == 0 {
		return nil
	}
	first, last := off/block, (off+length-1)/block
	for _, w := range v.watches {
		for _, r := range w.ranges {
			if r.Length > 0 && first <= (r.Offset+r.Length-1)/block && r.Offset/block <= last {
				return w
			}
		}
	}
	return nil
}

// Foreign is a volume outside every store, such as a plain backing file.
type Foreign struct {
	blockdev.Volume
	// BlockLength, if set, is the alignment that every access must have.
	BlockLength int64
}

// Flush implements blockdev.Volume.
func (f Foreign) Flush(context.Context) error { return nil }

// ReadAt implements blockdev.Volume.
func (f Foreign) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := f.check(off, int64(len(p))); err != nil {
		return err
	}
	return f.Volume.ReadAt(ctx, p, off)
}

// WriteAt implements blockdev.Volume.
func (f Foreign) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := f.check(off, int64(len(p))); err != nil {
		return err
	}
	return f.Volume.WriteAt(ctx, p, off)
}

// Unmap implements blockdev.Volume.
func (f Foreign) Unmap(ctx context.Context, off, length int64) error {
	if err := f.check(off, length); err != nil {
		return err
	}
	return f.Volume.Unmap(ctx, off, length)
}

func (f Foreign) check(off, length int64) error {
	if bl := f.BlockLength; bl > 0 && (off%bl != 0 || length%bl != 0) {
		return fmt.Errorf("%w: %d bytes at %d are not whole blocks of %d", blockdev.ErrInvalid, length, off, bl)
	}
	return nil
}
