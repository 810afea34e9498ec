package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/time/rate"

	"odx/backstore/blockmap"
	"odx/backstore/damage"
	"odx/backstore/dedup"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/rows"
	"odx/backstore/scrubplan"
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
	s.space.measure()
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
	for _, loop := range []func(context.Context){s.reapLoop, s.checkpointLoop, s.cleaner.loop, s.space.spareLoop, s.tidyLoop, s.scrubs.Run, s.writer.loadIndex, s.lookAtSegments} {
		s.life.background.Go(func() { loop(run) })
	}
	return s, nil
}

// newStore returns a store that is not open. o has its defaults.
func newStore(o Options) *Store {
	found := damage.NewLog(o.Log)
	s := &Store{
		opts: o, log: o.Log, damage: found, parts: parts{clock: pages.NewClock()},
		life:    life{readOnly: o.ReadOnly, log: o.Log, damage: found, owner: o.Owner},
		catalog: newCatalog(), copies: newCopyBuffers(),
		checkpoints: checkpointer{hurry: make(chan struct{}, 1), stored: make(chan struct{}, 1)},
	}
	p, opts := &s.parts, &s.opts
	s.recovery = recovery{parts: p, opts: opts, log: s.log, damage: s.damage, life: &s.life, catalog: &s.catalog, durable: &s.durable}
	s.records = recordTable{parts: p, opts: opts, life: &s.life, damage: s.damage, changed: make(map[string][]byte)}
	s.durable = syncer{parts: p, opts: opts}
	s.space = space{parts: p, opts: opts, log: s.log, damage: s.damage, checkpoints: &s.checkpoints, cleanNow: make(chan struct{}, 1)}
	s.pace = pacer{parts: p, opts: opts, life: &s.life, space: &s.space, checkpoints: &s.checkpoints}
	s.reader = reader{parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, pace: &s.pace, opMu: &s.opMu}
	s.writer = writer{
		parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, space: &s.space, durable: &s.durable,
		indexLoaded: make(chan struct{}),
	}
	s.scrubs = scrubplan.Plan{Records: planRecords{s}, Every: o.ScrubEvery, Scrub: s.scheduledScrub, Log: s.log}
	s.cleaner = cleaner{
		parts: p, opts: opts, log: s.log, life: &s.life, damage: s.damage, space: &s.space, writer: &s.writer, opMu: &s.opMu,
		checkpoint: s.Checkpoint, distrust: s.reader.distrust,
		budget: rate.NewLimiter(rate.Limit(o.CleanBytesPerSecond), int(max(o.CleanBytesPerSecond, cleanBatch))),
	}
	return s
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

// refuseFormat refuses a store of another format before it is claimed: a claim changes
// the lock.
func (s *Store) refuseFormat() error {
	if s.opts.ReadOnly {
		return nil
	}
	other := false
	for _, dir := range layout.Superblocks(s.opts.Dir) {
		_, err := layout.ReadSuperblock(s.opts.FS, filepath.Join(dir, layout.SuperblockName))
		if err == nil {
			return nil
		}
		_, is := errors.AsType[*layout.FormatError](err)
		other = other || is
	}
	if !other {
		return nil
	}
	_, _, _, err := s.opts.dir().FindSuperblock()
	if _, is := errors.AsType[*layout.FormatError](err); is {
		return err
	}
	return nil // what else is wrong its owner finds
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
	if err := errors.Join(s.parts.extents.SkipUnread(), s.parts.forest.SkipUnread()); err != nil {
		return st, err
	}
	s.writer.index = dedup.New(cache / 4)
	return st, s.loadTables()
}

// readState reads what the last checkpoint is.
func readState(kv meta.Reader) (rows.Checkpoint, error) {
	b, err := kv.Get([]byte(rows.CheckpointKey))
	if errors.Is(err, meta.ErrNotFound) {
		// Even that of a new store has it.
		return rows.Checkpoint{}, fmt.Errorf("%w: the store has no checkpoint: its files, in %s, are missing; restore them from a copy", ErrCorrupt, layout.CheckpointDir)
	}
	if err != nil {
		return rows.Checkpoint{}, err
	}
	return rows.DecodeCheckpoint(b)
}

func (s *Store) loadTables() error {
	err := s.scanTables(s.parts.kv,
		func(v *Volume) { s.catalog.volumes[v.number], s.catalog.byName[v.key()] = v, v },
		func(st *snapshotState) { s.catalog.snapshots[st.id] = st })
	if err == nil && s.opts.ReadOnly {
		err = s.recovery.salvageSnapshots()
	}
	return err
}

// scanTables calls the functions with every stored volume and snapshot.
func (s *Store) scanTables(kv meta.Reader, volume func(*Volume), snapshot func(*snapshotState)) error {
	err := kv.Scan([]byte{rows.VolumePrefix}, func(_, value []byte) error {
		row, err := rows.DecodeVolume(value)
		if err == nil {
			volume(s.volumeOf(&row))
		}
		return err
	})
	if err = s.life.tolerate("table of volumes", err); err != nil {
		return fmt.Errorf("table of volumes: %w", err)
	}
	err = kv.Scan([]byte{rows.SnapshotPrefix}, func(_, value []byte) error {
		row, err := rows.DecodeSnapshot(value)
		if err == nil {
			snapshot(newSnapshotState(&row))
		}
		return err
	})
	if err = s.life.tolerate("table of snapshots", err); err != nil {
		return fmt.Errorf("table of snapshots: %w", err)
	}
	return nil
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
	s.parts.segments, err = segment.Open(segment.Options{
		Blobs: blobs, StoreID: s.parts.sb.ID, Next: next, SegmentBlocks: s.opts.tuning.segmentBlocks,
		WriteBackBytes: s.opts.tuning.writeBackBytes, WriteBack: s.durable.writeBack, Gather: gatherBytes,
		Reserve: 1,
	})
	if err != nil {
		return err
	}
	if s.opts.ReadOnly {
		s.parts.segments.FindReserve()
	}
	there := s.parts.segments.List()
	for _, id := range s.parts.usage.Segments() {
		if !slices.Contains(there, id) {
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
	var damage *journal.DamageError
	if s.opts.ReadOnly && errors.As(err, &damage) {
		return s.replayUndamaged(ctx, o)
	}
	if errors.Is(err, fs.ErrPermission) {
		return err // it is there
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

func (s *Store) journalOptions(first journal.LSN) journal.Options {
	return journal.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.JournalDir), StoreID: s.parts.sb.ID, First: first,
		BeforeWrite: s.parts.segments.WriteOut, BeforeSync: s.durable.syncSegments, Legacy: s.parts.sb.OldJournal,
		FileBytes: s.space.journalFile, Left: s.space.noteLeft,
	}
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

// closeFiles closes what open has opened, in the order of dependence, and gives the store
// back.
func (s *Store) closeFiles() error {
	err := s.parts.close()
	if s.life.owner != nil {
		err = errors.Join(err, s.life.owner.Release())
	}
	return err
}
