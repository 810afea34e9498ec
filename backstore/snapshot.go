package backstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"odx/backstore/blockmap"
	"odx/backstore/invariant"
	"odx/backstore/journal"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/stale"
)

// MaxRanges is the largest number of ranges of one snapshot.
const MaxRanges = 1 << 14

// snapshotState is what the store keeps of a snapshot. Its tree has the
// geometry of the volume it came from and holds at least the ranges.
type snapshotState struct {
	id     uint64
	root   blockmap.Root
	ranges []Range
	length int64
	stale  stale.Blocks // as in Volume
	made   journal.LSN  // has to be durable before its data is shown; 0: it is

	// Guarded by catalog.mu.
	handles int
	deleted bool // its tree is given up when the last handle is released
}

// Snapshot is a handle on an immutable copy of ranges of a volume, in the order
// in which they were given. It keeps the data alive until it is released, even
// if the snapshot is deleted concurrently. It is safe for concurrent use.
type Snapshot struct {
	held  invariant.Held
	store *Store
	state *snapshotState
}

// newHandle returns a handle that is counted in st.
func (s *Store) newHandle(st *snapshotState) *Snapshot {
	n := &Snapshot{store: s, state: st}
	n.held.Take()
	return n
}

// ID returns the snapshot's number, never used again.
func (n *Snapshot) ID() uint64 { return n.state.id }

// Length returns the sum of the ranges' lengths in bytes.
func (n *Snapshot) Length() int64 { return n.state.length }

// Ranges returns the ranges of the volume, in the order of the snapshot's bytes.
func (n *Snapshot) Ranges() []Range { return slices.Clone(n.state.ranges) }

// ReadAt fills p from byte off of the ranges laid end to end.
func (n *Snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	n.held.Use()
	if !(Range{Offset: off, Length: int64(len(p))}).In(n.state.length) {
		return fmt.Errorf("%w: snapshot %d has %d bytes, wanted %d at %d", ErrRange, n.state.id, n.state.length, len(p), off)
	}
	for len(p) > 0 {
		at, length := n.state.locate(off)
		part := p[:min(int64(len(p)), length)]
		if err := n.store.reader.readTree(ctx, tree{snapshot: n.state}, part, at); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// locate returns where byte off lies in the tree, and how many bytes follow
// there in one piece. off is less than the length.
func (st *snapshotState) locate(off int64) (at, length int64) {
	for _, r := range st.ranges {
		if off < r.Length {
			return r.Offset + off, r.Length - off
		}
		off -= r.Length
	}
	return 0, 0
}

// blockRanges returns the blocks that the ranges touch, sorted and without
// overlap.
func blockRanges(ranges []Range) []blockmap.Range {
	var blocks []blockmap.Range
	for _, r := range ranges {
		if r.Length == 0 {
			continue
		}
		first := uint64(r.Offset / BlockLength)
		last := uint64((r.Offset + r.Length - 1) / BlockLength)
		blocks = append(blocks, blockmap.Range{First: first, Count: last - first + 1})
	}
	slices.SortFunc(blocks, func(a, b blockmap.Range) int { return cmp.Compare(a.First, b.First) })
	merged := blocks[:0]
	for _, b := range blocks {
		if n := len(merged); n > 0 && b.First <= merged[n-1].First+merged[n-1].Count {
			end := max(merged[n-1].First+merged[n-1].Count, b.First+b.Count)
			merged[n-1].Count = end - merged[n-1].First
			continue
		}
		merged = append(merged, b)
	}
	return merged
}

// Snapshot pins ranges of the volume as they are now, without moving data: its
// cost grows with the number of ranges, not with their length. recs, which may
// be nil, gives records to put in the same atomic step. It is durable after a
// Flush. The caller releases the handle.
func (v *Volume) Snapshot(ctx context.Context, ranges []Range, recs func(snapshotID uint64) []Record) (*Snapshot, error) {
	return v.snapshot(ctx, ranges, recs, func() error { return nil })
}

// snapshot is Snapshot, unless refuse says otherwise at the point of the
// volume's history at which it would be taken.
func (v *Volume) snapshot(ctx context.Context, ranges []Range, recs func(snapshotID uint64) []Record, refuse func() error) (*Snapshot, error) {
	s := v.store
	st := &snapshotState{ranges: slices.Clone(ranges), handles: 1}
	s.catalog.mu.Lock()
	s.catalog.lastSnapshot++
	st.id = s.catalog.lastSnapshot
	s.catalog.mu.Unlock()
	var records []Record
	if recs != nil {
		records = recs(st.id)
	}
	if err := checkRecords(records); err != nil {
		return nil, err
	}
	if len(ranges) > MaxRanges {
		return nil, fmt.Errorf("%w: snapshot of %d ranges", ErrInvalid, len(ranges))
	}
	if s.opts.ReadOnly {
		return s.lookSnapshot(v, st, records)
	}
	op, err := s.begin(ctx, &record.Snapshot{Volume: v.number, ID: st.id, Ranges: ranges, Records: records})
	if err != nil {
		return nil, err
	}
	defer op.End()
	// Shared is enough: the volume's nodes only gain references. Writers are
	// kept out, so the snapshot stands at one point of the volume's history.
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, r := range ranges {
		if err := v.admit(ctx, r.Offset, r.Length); err != nil {
			return nil, err
		}
	}
	if err := refuse(); err != nil {
		return nil, err
	}
	if err := s.parts.forest.TouchShare(v.root, blockRanges(st.ranges)); err != nil {
		return nil, s.life.unread(v.String(), 0, err)
	}
	log := func() {
		if lsn := op.Commit(); s.opts.Shared {
			st.made = lsn
		}
	}
	if err := s.takeSnapshot(v, st, records, log); err != nil {
		return nil, s.life.fail(err)
	}
	return s.newHandle(st), nil
}

// takeSnapshot enters a snapshot of the volume into the table. The volume is
// locked.
func (s *Store) takeSnapshot(v *Volume, st *snapshotState, records []Record, log func()) error {
	for _, r := range st.ranges {
		st.length += r.Length
	}
	var err error
	if st.root, err = s.parts.forest.Share(v.root, blockRanges(st.ranges)); err != nil {
		return err
	}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	s.catalog.snapshots[st.id] = st
	s.catalog.changedSnaps[st.id] = true
	s.catalog.lastSnapshot = max(s.catalog.lastSnapshot, st.id)
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	s.records.put(records)
	log()
	return nil
}

// Snapshot returns a handle on a snapshot, which the caller releases.
func (s *Store) Snapshot(id uint64) (*Snapshot, error) {
	if err := s.life.usable(); err != nil {
		return nil, err
	}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	st := s.catalog.snapshots[id]
	if st == nil || st.deleted {
		return nil, fmt.Errorf("snapshot %d: %w", id, ErrNotFound)
	}
	st.handles++
	return s.newHandle(st), nil
}

// DeleteSnapshot deletes a snapshot and puts records, in one atomic step. Its
// data is freed when no handle is left.
func (s *Store) DeleteSnapshot(ctx context.Context, id uint64, recs ...Record) error {
	if err := checkRecords(recs); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return s.hideSnapshot(id, recs)
	}
	op, err := s.begin(ctx, &record.DeleteSnapshot{ID: id, Records: recs})
	if err != nil {
		return err
	}
	defer op.End()
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	st := s.catalog.snapshots[id]
	if st == nil || st.deleted {
		return fmt.Errorf("snapshot %d: %w", id, ErrNotFound)
	}
	st.deleted = true
	s.catalog.changedSnaps[id] = true
	s.records.mu.Lock()
	s.records.put(recs)
	op.Commit()
	s.records.mu.Unlock()
	return s.dropSnapshot(st)
}

// lookSnapshot takes a snapshot in a store that is open for reading alone: of a tree
// that nothing changes.
func (s *Store) lookSnapshot(v *Volume, st *snapshotState, records []Record) (*Snapshot, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, r := range st.ranges {
		if err := v.checkRange(r.Offset, r.Length); err != nil {
			return nil, err
		}
		st.length += r.Length
	}
	st.root = v.root
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	s.catalog.snapshots[st.id] = st
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	s.records.put(records)
	return s.newHandle(st), nil
}

// hideSnapshot deletes a snapshot of a store that is open for reading alone, as long
// as it is.
func (s *Store) hideSnapshot(id uint64, recs []Record) error {
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	st := s.catalog.snapshots[id]
	if st == nil {
		return fmt.Errorf("snapshot %d: %w", id, ErrNotFound)
	}
	delete(s.catalog.snapshots, id) // a handle still has it
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	s.records.put(recs)
	return nil
}

// dropSnapshot gives up the tree of a deleted snapshot without handles. catalog.mu
// is held.
func (s *Store) dropSnapshot(st *snapshotState) error {
	if !st.deleted || st.handles > 0 {
		return nil
	}
	delete(s.catalog.snapshots, st.id)
	s.catalog.changedSnaps[st.id] = true
	if err := s.dropTree(st.root); err != nil {
		return s.life.fail(err)
	}
	return nil
}

// Release ends the handle. It must be called exactly once.
func (n *Snapshot) Release() {
	n.held.Return()
	s := n.store
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	n.state.handles--
	if s.life.usable() == nil {
		// An error stops the store and is reported by every later operation.
		_ = s.dropSnapshot(n.state)
	}
}

// row returns what is stored of the snapshot.
func (st *snapshotState) row() *rows.Snapshot {
	return &rows.Snapshot{ID: st.id, Deleted: st.deleted, Root: st.root, Ranges: st.ranges}
}

// newSnapshotState returns the snapshot that the row describes.
func newSnapshotState(r *rows.Snapshot) *snapshotState {
	st := &snapshotState{id: r.ID, deleted: r.Deleted, root: r.Root, ranges: r.Ranges}
	for _, part := range st.ranges {
		st.length += part.Length
	}
	return st
}
