package backstore

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/known"
	"odx/backstore/meta"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// cut is the state of the whole store at one instant.
type cut struct {
	expect    int64 // about how many bytes its rows take
	state     rows.Checkpoint
	forest    *blockmap.Cut
	extents   *extent.Cut
	known     *known.Cut
	usage     []meta.Op
	volumes   []meta.Op
	snapshots []meta.Op
	records   map[string][]byte
	snaps     map[uint64]bool
	deleted   map[uint64]bool
	aliases   aliasCut
	segments  []segment.ID // that can be deleted once the checkpoint is stored
}

// takeCut notes what changed. No operation is in progress: opMu is held
// exclusively.
func (s *Store) takeCut() (*cut, error) {
	if err := s.life.failed.Load(); err != nil {
		return nil, *err
	}
	lsn, err := s.parts.journal.Rotate()
	if err != nil {
		return nil, err
	}
	s.parts.clock.Tick()
	// Rows take about 60 % of what is in memory.
	c := &cut{expect: s.parts.dirty() * 6 / 10, forest: s.parts.forest.Cut(), extents: s.parts.extents.Cut(), known: s.parts.known.Cut(), usage: s.parts.usage.Cut()}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	for _, v := range s.catalog.volumes {
		c.volumes = append(c.volumes, meta.Op{Key: rows.Key(rows.VolumePrefix, v.number), Value: v.row().Encode()})
	}
	for number := range s.catalog.deletedVols {
		c.volumes = append(c.volumes, meta.Op{Key: rows.Key(rows.VolumePrefix, number)})
	}
	for id := range s.catalog.changedSnaps {
		op := meta.Op{Key: rows.Key(rows.SnapshotPrefix, id)}
		if st := s.catalog.snapshots[id]; st != nil {
			op.Value = st.row().Encode()
		}
		c.snapshots = append(c.snapshots, op)
	}
	c.snaps, s.catalog.changedSnaps = s.catalog.changedSnaps, make(map[uint64]bool)
	c.deleted, s.catalog.deletedVols = s.catalog.deletedVols, make(map[uint64]bool)
	s.records.mu.Lock()
	c.records, s.records.storing, s.records.changed = s.records.changed, s.records.changed, make(map[string][]byte)
	s.records.mu.Unlock()
	c.segments, c.aliases = s.cleaner.emptySegments(), s.aliases.cut()
	c.state = rows.Checkpoint{
		FirstLSN: lsn, NextNode: c.forest.Next, NextExtent: s.parts.extents.Next(), NextSegment: s.parts.segments.NextID(),
		LastVolume: s.catalog.lastVolume, LastSnapshot: s.catalog.lastSnapshot, Pinned: s.parts.extents.Pinned(), Dropped: c.forest.Dropped,
	}
	return c, nil
}

// Checkpoint stores the state as rows of metadata and frees the journal.
func (s *Store) Checkpoint(ctx context.Context) error {
	if s.parts.journal == nil {
		return ErrStoreReadOnly
	}
	s.checkpoints.running.Lock()
	defer s.checkpoints.running.Unlock()
	err := spaceError(s.checkpoint(ctx))
	if s.life.cancel != nil { // else it is not open, but made by a repair
		s.space.measure()
	}
	return err
}

// checkpoint is a Checkpoint while no other one can run.
func (s *Store) checkpoint(ctx context.Context) (err error) {
	s.checkpoints.storing.Store(true)
	defer s.checkpoints.storing.Store(false)
	began := time.Now()
	defer func() {
		if ctx.Err() != nil {
			s.checkpoints.ended(nil) // the caller gave up, which says nothing of the disk
			return
		}
		s.checkpoints.count(began, err)
		s.checkpoints.ended(spaceError(err))
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.opMu.Lock()
	c, err := s.takeCut()
	s.opMu.Unlock()
	if err != nil {
		return err
	}
	if err := s.storeCut(c); err != nil {
		s.opMu.Lock()
		s.abandon(c)
		s.opMu.Unlock()
		return err
	}
	return s.finishCut(c)
}

// finishCut frees what a cut that is stored has made superfluous.
func (s *Store) finishCut(c *cut) error {
	c.forest.Done()
	c.extents.Done()
	c.known.Done()
	s.records.mu.Lock()
	s.records.storing = nil
	s.records.mu.Unlock()
	s.pace.firstLSN.Store(uint64(c.state.FirstLSN))
	select {
	case s.checkpoints.stored <- struct{}{}:
	default:
	}
	if err := s.parts.journal.Truncate(c.state.FirstLSN); err != nil {
		return err
	}
	s.pace.journalRoom.Store(min(s.parts.journal.Room(), s.space.journalFile))
	s.aliases.done(c.aliases)
	for _, id := range c.segments {
		if !s.holds.leave(id) {
			continue // another store was lent it since
		}
		err := s.space.removeSegment(id)
		s.holds.left(id)
		if err != nil {
			return err
		}
	}
	return nil
}

// storeCut makes the cut durable.
func (s *Store) storeCut(c *cut) error {
	// The journal will no longer carry the data of small writes, and must reach to
	// the record that the checkpoint says is the next one: see package journal.
	if err := s.parts.segments.Sync(); err != nil {
		return err
	}
	if err := s.parts.journal.Commit(context.Background(), c.state.FirstLSN-1); err != nil {
		return err
	}
	return s.parts.kv.Store(c.expect, c.emit)
}

// emit puts the rows of the cut, in the order of their keys.
func (c *cut) emit(put func(meta.Op) error) error {
	parts := c.forest.Parts()
	maps.Copy(parts, c.extents.Parts())
	maps.Copy(parts, c.known.Parts())
	sorted := func(ops []meta.Op) func(func(meta.Op) error) error {
		slices.SortFunc(ops, func(a, b meta.Op) int { return bytes.Compare(a.Key, b.Key) })
		return func(put func(meta.Op) error) error { return putAll(ops, put) }
	}
	records := make([]meta.Op, 0, len(c.records))
	for key, value := range c.records {
		records = append(records, meta.Op{Key: rows.RecordKey([]byte(key)), Value: value})
	}
	for _, ops := range [][]meta.Op{c.volumes, c.snapshots, c.usage, records, c.aliases.ops, {{Key: []byte(rows.CheckpointKey), Value: c.state.Encode()}}} {
		if len(ops) > 0 {
			parts[ops[0].Key[0]] = sorted(ops)
		}
	}
	for _, prefix := range slices.Sorted(maps.Keys(parts)) {
		if err := parts[prefix](put); err != nil {
			return err
		}
	}
	return nil
}

func putAll(ops []meta.Op, put func(meta.Op) error) error {
	for _, op := range ops {
		if err := put(op); err != nil {
			return err
		}
	}
	return nil
}

// abandon marks what is in a cut that could not be stored as changed again.
// opMu is held exclusively.
func (s *Store) abandon(c *cut) {
	c.forest.Abandon()
	c.extents.Abandon()
	c.known.Abandon()
	s.parts.usage.Abandon(c.usage)
	s.aliases.abandon(c.aliases)
	s.catalog.mu.Lock()
	for id := range c.snaps {
		s.catalog.changedSnaps[id] = true
	}
	for number := range c.deleted {
		s.catalog.deletedVols[number] = true
	}
	s.catalog.mu.Unlock()
	s.records.mu.Lock()
	for key, value := range c.records {
		if _, newer := s.records.changed[key]; !newer {
			s.records.changed[key] = value
		}
	}
	s.records.storing = nil
	s.records.mu.Unlock()
}
