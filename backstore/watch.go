package backstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"odx/backstore/blockmap"
	"odx/backstore/record"
)

// MaxWatches is the largest number of watches over one volume: every write to
// it looks at each.
const MaxWatches = 1024

// errWatched: a range that is about to change is watched since notice was
// given; the change has to begin again.
var errWatched = errors.New("the range is being watched")

// Watch is a promise that ranges of a volume have not changed since the watch
// began. Before the first change of a block that they touch takes effect, by a
// write, a map, an unmap or the volume's deletion, the watch's function is
// called; the change waits for it, and fails if it fails. So whatever the
// function stores is in the journal before the change.
//
// A volume without watches pays one atomic load for each change.
type Watch struct {
	volume   *Volume
	blocks   []blockmap.Range
	changing func(context.Context) error

	notice sync.Mutex // held while changing runs
	// over is set before a change of the ranges takes effect, and by Stop. With
	// the volume locked, a watch that is not over still keeps its promise.
	over atomic.Bool
}

// Watch begins a watch over ranges of the volume and puts records in the same
// atomic step; they are durable after a Flush. changing is called with no lock
// held, at most once without an error, and may change the store, but not the
// ranges. ErrTooMany: the volume has MaxWatches already.
func (v *Volume) Watch(ctx context.Context, ranges []Range, recs []Record, changing func(context.Context) error) (*Watch, error) {
	if err := checkRecords(recs); err != nil {
		return nil, err
	}
	w := &Watch{volume: v, blocks: blockRanges(ranges), changing: changing}
	s := v.store
	op, err := s.begin(ctx, &record.PutClients{Records: recs})
	if err != nil {
		return nil, err
	}
	defer op.End()
	// Shared is enough to keep writers out, as for a snapshot.
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, r := range ranges {
		if err := v.admit(ctx, r.Offset, r.Length); err != nil {
			return nil, err
		}
	}
	if err := v.watched.add(w); err != nil {
		return nil, fmt.Errorf("%v: %w", v, err)
	}
	if len(recs) > 0 {
		s.records.mu.Lock()
		s.records.put(recs)
		op.Commit()
		s.records.mu.Unlock()
	}
	return w, nil
}

// Snapshot is Volume.Snapshot on the condition that the promise still holds;
// ErrChanged if it does not.
func (w *Watch) Snapshot(ctx context.Context, ranges []Range, recs func(snapshotID uint64) []Record) (*Snapshot, error) {
	return w.volume.snapshot(ctx, ranges, recs, func() error {
		if w.over.Load() {
			return fmt.Errorf("%v: %w", w.volume, ErrChanged)
		}
		return nil
	})
}

// Stop ends the watch without a call of its function. It may be called more
// than once, and by the function.
func (w *Watch) Stop() {
	w.over.Store(true)
	w.volume.watched.remove(w)
}

// tell calls the function, unless another caller did.
func (w *Watch) tell(ctx context.Context) error {
	w.notice.Lock()
	defer w.notice.Unlock()
	if w.over.Load() {
		return nil
	}
	if err := w.changing(ctx); err != nil {
		return err
	}
	w.Stop()
	return nil
}

func (w *Watch) touches(block, count uint64) bool {
	for _, r := range w.blocks {
		if block < r.First+r.Count && r.First < block+count {
			return true
		}
	}
	return false
}

// watches are those over one volume. Readers take the list as it is; it is
// replaced, never changed.
type watches struct {
	list atomic.Pointer[[]*Watch] // nil: none
	mu   sync.Mutex               // held while list is replaced
}

func (ws *watches) add(w *Watch) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var list []*Watch
	if old := ws.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if len(list) >= MaxWatches {
		return fmt.Errorf("%w: %d watches", ErrTooMany, len(list))
	}
	list = append(list, w)
	ws.list.Store(&list)
	return nil
}

func (ws *watches) remove(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	old := ws.list.Load()
	if old == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*old), func(x *Watch) bool { return x == w })
	if len(list) == 0 {
		ws.list.Store(nil)
		return
	}
	ws.list.Store(&list)
}

// giveNotice is called before a change of blocks, with no lock held.
func (ws *watches) giveNotice(ctx context.Context, block, count uint64) error {
	list := ws.list.Load()
	if list == nil {
		return nil
	}
	for _, w := range *list {
		if w.touches(block, count) {
			if err := w.tell(ctx); err != nil {
				return fmt.Errorf("end what relies on the data that a write changes: %w", err)
			}
		}
	}
	return nil
}

// check is called with the volume locked for a change of blocks: errWatched
// means that a watch over them began after notice was given.
func (ws *watches) check(block, count uint64) error {
	list := ws.list.Load()
	if list == nil {
		return nil
	}
	for _, w := range *list {
		if !w.over.Load() && w.touches(block, count) {
			return errWatched
		}
	}
	return nil
}

// changeWatched gives notice of a change of blocks and makes it, again if
// a watch over them begins in between.
func (v *Volume) changeWatched(ctx context.Context, block, count uint64, change func() error) error {
	for {
		if err := v.watched.giveNotice(ctx, block, count); err != nil {
			return err
		}
		if err := change(); err != errWatched {
			return err
		}
	}
}
