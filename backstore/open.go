package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"odx/backstore/blockmap"
	"odx/backstore/dedup"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/journal"
	"odx/backstore/known"
	"odx/backstore/layout"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// Open opens the store in o.Dir, or makes one. It returns ErrLocked when
// another process has it open, ErrCorrupt when it is damaged.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.setDefaults(); err != nil {
		return nil, errors.Join(err, o.releaseOwner())
	}
	s := newStore(o)
	if err := s.open(ctx); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("store %s: %w", o.Dir, accessError(spaceError(err)))
	}
	if err := errors.Join(s.loadProtections(), s.loadHolds()); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("store %s: %w", o.Dir, err)
	}
	s.space.measure()
	if !o.ReadOnly {
		s.cleaner.resume()
	}
	run, cancel := context.WithCancel(context.Background())
	s.life.cancel = cancel
	if o.ReadOnly {
		s.lookAtSegments(ctx)
		if !s.recovery.unused.Torn {
			s.recovery.logUnused()
		}
		close(s.writer.indexLoaded) // nothing is deduplicated
		return s, nil
	}
	for _, loop := range []func(context.Context){s.reapLoop, s.checkpointLoop, s.cleaner.loop, s.space.spareLoop, s.tidyLoop, s.namesLoop, s.scrubs.Run, s.writer.loadIndex, s.lookAtSegments} {
		s.life.background.Go(func() { loop(run) })
	}
	if err := errors.Join(s.continueSeries(ctx), s.finishReverts(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", o.Dir, err), s.Close())
	}
	return s, nil
}

// open opens the parts one after the other. Nothing that an earlier process left
// is removed, and no file is made, before all of them are proved to fit.
func (s *Store) open(ctx context.Context) error {
	if err := s.checkAccess(); err != nil {
		return err
	}
	if err := s.refuseFormat(); err != nil {
		return err
	}
	if err := s.own(ctx); err != nil {
		return err
	}
	if s.opts.dir().Exists(filepath.Join(layout.RepairDir, layout.RepairedTag)) {
		return fmt.Errorf("%w: its repair was interrupted: the repaired metadata is complete in %s, and no data is lost: run odx store repair --in-place once more, which puts it in place", ErrCorrupt, filepath.Join(s.opts.Dir, layout.RepairDir))
	}
	sb, bad, found, err := s.opts.dir().FindSuperblock()
	if lost, ok := errors.AsType[*layout.LostError](err); ok && s.opts.ReadOnly {
		sb, err = s.rebuildSuperblock(lost)
		found = true
	} else if ok {
		err = s.advise(err)
	}
	if upgradable(err) && s.opts.ReadOnly {
		s.parts.sb = sb
		_, err = s.convertRows(ctx)
		found = true
	}
	if err != nil {
		return err
	}
	s.parts.sb = sb
	if !found {
		if s.opts.ReadOnly {
			return fmt.Errorf("%w: there is no store in %s", ErrNotFound, s.opts.Dir)
		}
		if err := s.create(); err != nil {
			return err
		}
	}
	if err := s.openParts(ctx); err != nil {
		return s.advise(err)
	}
	if err := s.settle(ctx, bad); err != nil {
		return err
	}
	s.checkPlace()
	return nil
}

// advise adds what to do to an error that ends opening a store for writing because of
// damage.
func (s *Store) advise(err error) error {
	damaged := errors.Is(err, ErrCorrupt) || errors.Is(err, journal.ErrCorrupt) || metadataDamage(err)
	if !damaged || s.opts.ReadOnly || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w; nothing was changed: odx store repair rebuilds what can be proved right, odx serve --rescue serves what can be read", corrupt(err))
}

// openParts opens what the superblock is of.
func (s *Store) openParts(ctx context.Context) (err error) {
	s.parts.fingerprints = fingerprint.New(s.parts.sb.FingerprintKey)
	s.parts.kv, err = s.openRows(s.laterUnneeded(ctx))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w: all metadata is in there; restore it from a copy", ErrCorrupt, err)
	}
	if err != nil {
		return corrupt(err)
	}
	s.pace.journalRoom.Store(s.space.journalFile) // until a checkpoint shows what there can be
	if why := s.parts.kv.Unneeded(); why != nil {
		s.log.WithError(why).Warn("files with names of metadata cannot be read; nothing of them is needed, since the journal has every change after the metadata that can be read")
	}
	if lost := s.parts.kv.Lost(); lost != nil {
		s.damage.Note("checkpoints", lost)
	}
	if s.parts.sb.Unit == 0 {
		if s.parts.sb.Unit, err = s.recovery.findUnit(ctx); err != nil {
			return err
		}
	}
	st, err := s.loadState()
	if err != nil {
		return corrupt(err)
	}
	return s.replay(ctx, st)
}

// settle ends opening, with a store whose parts fit: it mends the copies of the
// superblock that are bad.
func (s *Store) settle(ctx context.Context, bad []layout.BadCopy) error {
	if s.opts.ReadOnly {
		for _, one := range bad {
			s.log.WithError(one.Why).WithField("file", filepath.Join(one.Dir, layout.SuperblockName)).Warn("the other copy of the superblock is used")
		}
		return nil
	}
	s.parts.kv.Settle()
	if s.parts.sb.OldJournal {
		if err := s.endUpgrade(ctx); err != nil {
			return err
		}
	}
	for _, one := range bad {
		s.mendSuperblock(one)
	}
	for _, mark := range []string{layout.CreatingName, layout.UnfinishedName} {
		if !s.opts.dir().Exists(mark) {
			continue
		}
		if err := s.opts.dir().Unmark(mark); err != nil {
			return err
		}
	}
	return nil
}

// mendSuperblock writes a copy of the superblock again. The other one is right, so
// a store opens also where this cannot be done: on a full disk, or where something
// else has the name.
func (s *Store) mendSuperblock(bad layout.BadCopy) {
	name := filepath.Join(bad.Dir, layout.SuperblockName)
	if err := s.parts.sb.Write(s.opts.FS, bad.Dir); err != nil {
		s.damage.Note(name, fmt.Errorf("this copy of the superblock cannot be mended: %w", err))
		return
	}
	s.damage.NoteMended(name, bad.Why)
}

// loadState reads the last checkpoint and makes the parts that live in memory.
func (s *Store) loadState() (rows.Checkpoint, error) {
	st, err := readState(s.parts.kv)
	if err = s.life.tolerate("state of the last checkpoint", err); err != nil {
		return st, err
	}
	if st.FirstLSN == 0 {
		if st, err = s.salvageState(); err != nil {
			return st, err
		}
	}
	s.catalog.lastVolume, s.catalog.lastSnapshot = st.LastVolume, st.LastSnapshot
	s.pace.firstLSN.Store(uint64(st.FirstLSN))
	if s.parts.usage, err = extent.LoadUsage(s.parts.kv); s.life.tolerate("usage of segments", err) != nil {
		return st, err
	}
	// The rest is for the rows read last and for what is changed and not
	// stored yet, which is never evicted.
	cache := s.opts.CacheBytes
	s.parts.extents = extent.NewTable(extent.Options{
		KV: s.recovery.reader(), Clock: s.parts.clock, Unit: s.parts.sb.Unit, Next: st.NextExtent, Usage: s.parts.usage,
		MaxBytes: cache * 5 / 16,
	})
	s.parts.forest = blockmap.New(blockmap.Options{
		KV: s.recovery.reader(), Clock: s.parts.clock, Extents: s.parts.extents, MaxBytes: cache / 4, Next: st.NextNode, Dropped: st.Dropped,
	})
	s.parts.known = known.NewTable(known.Options{KV: s.recovery.reader(), Clock: s.parts.clock, MaxBytes: cache / 32})
	if err := errors.Join(s.parts.extents.SkipUnread(), s.parts.forest.SkipUnread()); err != nil {
		return st, err
	}
	s.writer.index = dedup.New(cache / 4)
	return st, s.loadTables()
}

// replay opens segments and journal and does what the journal holds again.
func (s *Store) replay(ctx context.Context, st rows.Checkpoint) error {
	if err := s.openSegments(st.NextSegment); err != nil {
		return err
	}
	s.parts.extents.BeginReplay(st.Pinned)
	if err := s.openJournal(ctx, st.FirstLSN); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		if err := errors.Join(s.salvageVolumes(), s.recovery.noteSnapshots()); err != nil {
			return err
		}
	}
	for _, st := range s.catalog.snapshots {
		if err := s.dropSnapshot(st); err != nil {
			return err
		}
	}
	err := s.parts.extents.EndReplay()
	if err == nil {
		err = s.recovery.placeDisplaced()
	}
	s.parts.clock.Guard(&s.opMu)
	return s.life.tolerate("extents", err)
}

// openSegments opens the segments, and notes those that are missing: a checkpoint
// is stored after the segments that it counts.
func (s *Store) openSegments(next segment.ID) error {
	blobs, err := segment.DirGiving(s.opts.FS, s.opts.segmentPath(), s.space.giveUp)
	if err != nil {
		return err
	}
	if s.opts.Shared { // a taker, or an owner of before, may have it open for as long as it likes
		blobs = segment.NeverReused(blobs)
	}
	s.parts.segments, err = segment.Open(segment.Options{
		Blobs: blobs, StoreID: s.parts.sb.ID, Next: next, SegmentBlocks: s.opts.tuning.segmentBlocks,
		WriteBackBytes: s.opts.tuning.writeBackBytes, WriteBack: s.durable.writeBack, Gather: gatherBytes,
		Reserve: 1, Foreign: s.aliases.openFile,
	})
	if err != nil {
		return err
	}
	if s.opts.ReadOnly {
		s.parts.segments.FindReserve()
	}
	there := s.parts.segments.List()
	for _, id := range s.parts.usage.Segments() {
		if !slices.Contains(there, id) && !s.aliases.is(id) {
			s.damage.Note(fmt.Sprintf("segment %08x", uint32(id)),
				fmt.Errorf("%w: its file is missing; %d blocks of data lie in it", ErrCorrupt, s.parts.usage.Live(id)))
		}
	}
	return nil
}

// openJournal opens the journal and replays it from a record on.
func (s *Store) openJournal(ctx context.Context, first journal.LSN) (err error) {
	o := s.journalOptions(first)
	if s.recovery.stateless {
		return s.compareJournal(ctx)
	}
	redo := replay{s}.redo
	if s.opts.ReadOnly {
		redo = (&salvage{replay: replay{s}}).redo
	}
	s.parts.journal, err = journal.Open(ctx, o, redo)
	if denied := deniedJournal(err); denied != nil {
		return denied
	}
	var damage *journal.DamageError
	if s.opts.ReadOnly && errors.As(err, &damage) {
		return s.replayUndamaged(ctx, o)
	}
	if errors.As(err, &damage) {
		return fmt.Errorf("%w: %w%s", ErrCorrupt, err, s.changesAfter(ctx, o))
	}
	if err != nil {
		return err
	}
	s.durable.recovered.Store(true)
	return s.noteTorn(ctx, s.parts.journal.Torn())
}

// Close makes everything durable, stores a checkpoint and releases the store.
// Operations that are still running fail or finish first.
func (s *Store) Close() error {
	if s.life.closed.Swap(true) {
		return ErrClosed
	}
	s.life.cancel()
	s.life.background.Wait()
	s.checkpoints.stop()
	// From here on no operation changes anything: those that began earlier have
	// ended when opMu is free, later ones find the store closed.
	if s.opts.ReadOnly {
		return s.closeFiles()
	}
	if err := s.life.owner.Check(); err != nil {
		return errors.Join(err, s.closeFiles())
	}
	err := s.Checkpoint(context.Background())
	if errors.Is(err, ErrNoSpace) {
		// The journal has what the checkpoint would: opening the store does it again.
		s.log.WithError(err).Warn("closed without a checkpoint")
		err = nil
	}
	if err == nil {
		err = s.parts.journal.Commit(context.Background(), s.parts.journal.Last())
	}
	return spaceError(errors.Join(err, s.closeFiles()))
}
