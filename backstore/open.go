package backstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/time/rate"

	"odx/backstore/blockmap"
	"odx/backstore/dedup"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/journal"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// Files and folders of a store.
const (
	lockName    = "lock"
	journalDir  = "journal"
	segmentDir  = "segments"
	metadataDir = "metadata"
)

// Open opens the store in o.Dir, or makes one. It returns ErrLocked when
// another process has it open, ErrCorrupt when it is damaged.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		opts: o, log: o.Log, clock: pages.NewClock(),
		volumes: make(map[uint64]*Volume), byName: make(map[nameKey]*Volume),
		snapshots: make(map[uint64]*snapshotState), changedSnaps: make(map[uint64]bool),
		deletedVols: make(map[uint64]bool), records: make(map[string][]byte), indexLoaded: make(chan struct{}),
		checkpoints: checkpointer{hurry: make(chan struct{}, 1)},
	}
	s.cleanBudget = rate.NewLimiter(rate.Limit(o.CleanBytesPerSecond), int(max(o.CleanBytesPerSecond, cleanBatch)))
	if err := s.open(ctx); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("store %s: %w", o.Dir, spaceError(err))
	}
	s.measureSpace()
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, loop := range []func(context.Context){s.reapLoop, s.checkpointLoop, s.cleanLoop, s.spareLoop, s.loadIndex} {
		s.background.Go(func() { loop(run) })
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	fsys, dir := s.opts.FS, s.opts.Dir
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w (%s)", ErrLocked, filepath.Join(dir, lockName))
	}
	if err != nil {
		return err
	}
	s.unlock = lock.Close
	if s.sb, err = loadSuperblock(fsys, dir, s.opts.DedupUnit/BlockLength); err != nil {
		return err
	}
	s.fingerprints = fingerprint.New(s.sb.fingerprintKey)
	// Badger gets a share of the memory for its own block cache.
	if s.kv, err = s.opts.OpenKV(filepath.Join(dir, metadataDir), s.log, s.opts.CacheBytes/8); err != nil {
		return err
	}
	if err := applyRedo(fsys, dir, s.kv); err != nil {
		return err
	}
	st, err := s.loadState()
	if err != nil {
		return err
	}
	return s.replay(ctx, st)
}

// loadState reads the last checkpoint and makes the parts that live in memory.
func (s *Store) loadState() (state, error) {
	st, err := readState(s.kv)
	if err != nil {
		return st, err
	}
	s.lastVolume, s.lastSnapshot = st.lastVolume, st.lastSnapshot
	s.firstLSN.Store(uint64(st.firstLSN))
	if s.usage, err = extent.LoadUsage(s.kv); err != nil {
		return st, err
	}
	// The rest is for Badger's block cache and for what is changed and not
	// stored yet, which is evicted by nobody.
	cache := s.opts.CacheBytes
	s.extents = extent.NewTable(extent.Options{
		KV: s.kv, Clock: s.clock, Unit: s.sb.unit, Next: st.nextExtent, Usage: s.usage,
		MaxBytes: cache * 5 / 16,
	})
	s.forest = blockmap.New(blockmap.Options{
		KV: s.kv, Clock: s.clock, Extents: s.extents, MaxBytes: cache / 4, Next: st.nextNode, Dropped: st.dropped,
	})
	s.index = dedup.New(cache / 4)
	return st, s.loadTables()
}

// readState reads what the last checkpoint is, if there is one.
func readState(kv meta.Reader) (state, error) {
	b, err := kv.Get([]byte(stateKey))
	if errors.Is(err, meta.ErrNotFound) {
		return state{firstLSN: 1}, nil
	}
	if err != nil {
		return state{}, err
	}
	return decodeState(b)
}

func (s *Store) loadTables() error {
	return s.scanTables(s.kv,
		func(v *Volume) { s.volumes[v.number], s.byName[v.key()] = v, v },
		func(st *snapshotState) { s.snapshots[st.id] = st })
}

// scanTables calls the functions with every stored volume and snapshot.
func (s *Store) scanTables(kv meta.Reader, volume func(*Volume), snapshot func(*snapshotState)) error {
	err := kv.Scan([]byte{volumePrefix}, func(_, value []byte) error {
		d := dec{b: value}
		if row := d.volumeRow(); d.err == nil {
			volume(s.volumeOf(&row))
		}
		return d.err
	})
	if err != nil {
		return fmt.Errorf("table of volumes: %w", err)
	}
	err = kv.Scan([]byte{snapshotPrefix}, func(_, value []byte) error {
		d := dec{b: value}
		if row := d.snapshotRow(); d.err == nil {
			snapshot(row.state())
		}
		return d.err
	})
	if err != nil {
		return fmt.Errorf("table of snapshots: %w", err)
	}
	return nil
}

// replay opens segments and journal and does what the journal holds again.
func (s *Store) replay(ctx context.Context, st state) error {
	fsys, dir := s.opts.FS, s.opts.Dir
	blobs, err := segment.Dir(fsys, filepath.Join(dir, segmentDir))
	if err != nil {
		return err
	}
	s.segments, err = segment.Open(segment.Options{
		Blobs: blobs, StoreID: s.sb.id, Next: st.nextSegment, SegmentBlocks: s.opts.segmentBlocks,
	})
	if err != nil {
		return err
	}
	s.extents.BeginReplay(st.pinned)
	s.replaying = true
	s.journal, err = journal.Open(ctx, journal.Options{
		FS: fsys, Dir: filepath.Join(dir, journalDir), StoreID: s.sb.id, First: st.firstLSN, BeforeSync: s.syncSegments,
	}, s.redo)
	if err != nil {
		return err
	}
	s.replaying = false
	for _, st := range s.snapshots {
		if err := s.dropSnapshot(st); err != nil {
			return err
		}
	}
	err = s.extents.EndReplay()
	s.clock.Guard(&s.opMu)
	return err
}

// Close makes everything durable, stores a checkpoint and releases the store.
// Operations that are still running fail or finish first.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return ErrClosed
	}
	s.cancel()
	s.background.Wait()
	s.checkpoints.stop()
	// From here on no operation changes anything: those that began earlier have
	// ended when opMu is free, later ones find the store closed.
	err := s.Checkpoint(context.Background())
	if err == nil {
		err = s.journal.Commit(context.Background(), s.journal.Last())
	}
	return spaceError(errors.Join(err, s.closeFiles()))
}

// closeFiles closes what open has opened, in the order of dependence.
func (s *Store) closeFiles() error {
	var errs []error
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.segments != nil {
		errs = append(errs, s.segments.Close())
	}
	if c, ok := s.kv.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	if s.unlock != nil {
		errs = append(errs, s.unlock())
	}
	return errors.Join(errs...)
}
