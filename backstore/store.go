// Package backstore is the extent store: volumes, snapshots and small records,
// kept in one folder.
//
// A volume is an address space, an extent is a physical frame, the map
// (package blockmap) is its page table. Data lies once in append-only segments
// (package segment); the extent table (package extent) says where, and how
// often it is referred to. Snapshots and copies share map nodes and extents
// instead of moving bytes.
//
// Every change is applied in memory and appended to the journal (package
// journal) in the same order; Flush makes what was appended durable. A
// checkpoint moves the state into the metadata engine (package meta) and frees
// the journal. Opening a store loads the last checkpoint and replays what the
// journal holds beyond it.
//
// Lock order, outermost first:
//
//	Store.opMu (shared by every operation, exclusive for a checkpoint's cut)
//	Volume.mu (guards the volume's tree, size and existence)
//	Store.tableMu (guards the tables of volumes and snapshots)
//	Store.recordMu (guards the records)
//	locks inside blockmap, extent, pages; then the journal's
//
// No lock of this list but opMu (shared) is held while data is read or written;
// metadata that is not cached is read under them.
package backstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/backstore/blockmap"
	"odx/backstore/damage"
	"odx/backstore/dedup"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/invariant"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/record"
	"odx/backstore/reserve"
	"odx/backstore/rows"
	"odx/backstore/segment"
	"odx/owner"
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	opts  Options
	log   *logrus.Entry
	sb    layout.Superblock
	moved bool // it is not where its superblock says
	clock *pages.Clock

	kv       *meta.DB
	segments *segment.Set
	journal  *journal.Journal
	extents  *extent.Table
	usage    *extent.Usage
	forest   *blockmap.Forest
	reserve  *reserve.Pool
	// journalFile is the length that files of the journal grow to.
	journalFile int64
	// journalRoom is for how many bytes of records the journal had blocks after the last
	// checkpoint, at most journalFile.
	journalRoom atomic.Int64
	index       *dedup.Index
	// indexLoaded is closed when the index knows what the last checkpoint has.
	indexLoaded  chan struct{}
	fingerprints *fingerprint.Key
	plans        sync.Pool // of *writePlan
	blocks       sync.Pool // of *[BlockLength]byte
	copies       copyBuffers
	appends      appendFloors

	opMu sync.RWMutex

	tableMu      sync.Mutex
	volumes      map[uint64]*Volume
	byName       map[rows.Name]*Volume
	snapshots    map[uint64]*snapshotState
	changedSnaps map[uint64]bool // since the last cut
	deletedVols  map[uint64]bool // since the last cut
	lastVolume   uint64
	lastSnapshot uint64

	recordMu  sync.Mutex
	records   map[string][]byte // changed since the last cut; nil: deleted
	storing   map[string][]byte // changed before the running checkpoint's cut
	replaying bool
	redone    journal.LSN // the last record that was replayed
	stateless bool        // it is not known which records the rows have; none is replayed
	unused    record.Unused
	displaced []displaced // by the replay; displacedBytes is how long it was

	displacedBytes int

	superblockLost bool // both copies: it is made of what the other files say, with a new key

	guessed bool // rows of volumes are lost: no more than an older row, or nothing, is known of some

	// segmentDirty: the journal has records whose data lies only in segments.
	segmentDirty atomic.Bool
	unflushed    atomic.Int64 // bytes written since the last Flush began
	lowSpace     atomic.Bool  // the host's file system has no room for new data
	measuring    sync.Mutex   // held by measureSpace
	reserveErr   string       // that was logged last; guarded by measuring
	namesHeld    bool         // in the directories of the store, since the disk had room last; guarded by measuring
	disk         atomic.Int64 // about what DiskBytes returns, where there is a capacity
	recovered    atomic.Bool  // journal is open
	failed       atomic.Pointer[error]
	closed       atomic.Bool

	// auditMu is held by Stats and by Check: one holds references to trees that
	// the other would not find an owner for. Outermost of all locks.
	auditMu sync.Mutex

	// cleaning is held while a segment is cleaned: two at work on one would
	// both copy what only one of them moves. Outermost, like auditMu.
	cleaning sync.Mutex

	onFull     atomic.Pointer[func(ctx context.Context, need int64) bool]
	makingRoom sync.Mutex // held while onFull runs. Outermost, like auditMu
	reaping    sync.Mutex // held for a step of reaping; outside of opMu

	checkpoints checkpointer
	damage      *damage.Log
	firstLSN    atomic.Uint64 // of the records that the last checkpoint does not have
	cleanBudget *rate.Limiter
	cleanNow    chan struct{}      // holds a token when a write waits for cleaning
	cancel      context.CancelFunc // ends the background goroutines
	background  sync.WaitGroup
	owner       *owner.Owner // nil before it is claimed
}

// DedupUnit returns the largest extent in bytes.
func (s *Store) DedupUnit() int { return s.sb.Unit * BlockLength }

// usable returns why no operation may start, if that is so.
func (s *Store) usable() error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := s.owner.Check(); err != nil {
		return err
	}
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes the store read-only: the state in memory may have a half-done
// operation in it, which must reach neither the journal nor a checkpoint. What
// the journal holds is right, so opening the store again is the way on. Reads go
// on.
func (s *Store) fail(err error) error {
	prove(err)
	err = fmt.Errorf("the store is read-only after a metadata error, restart it: %w", err)
	if s.failed.CompareAndSwap(nil, &err) {
		s.log.WithError(err).Error("the store is read-only from now on")
	}
	return err
}

// prove panics, in builds with invariants, when err says that metadata
// contradict each other: nothing but a fault of the store makes them.
func prove(err error) {
	if invariant.Enabled && (errors.Is(err, blockmap.ErrInconsistent) || errors.Is(err, extent.ErrInconsistent)) {
		invariant.Violated("%v", err)
	}
}

// writable returns why nothing may be changed, if that is so.
func (s *Store) writable() error {
	if s.opts.ReadOnly {
		return ErrStoreReadOnly
	}
	return s.usable()
}

// Flush makes every change that returned before durable.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return nil
	}
	s.unflushed.Store(0)
	return spaceError(s.journal.Commit(ctx, s.journal.Last()))
}

// WriteOut gives every change that returned before to the kernel: it outlives
// this process then, but not a power cut. It waits for the disk only where the
// kernel has no room for more, and where a new file of the journal begins. After
// an error the changes are there, and may be lost with the process.
func (s *Store) WriteOut(ctx context.Context) error {
	if s.opts.ReadOnly {
		return nil
	}
	return spaceError(s.journal.Write(ctx, s.journal.Last()))
}

// Unwritten reports whether there are changes that WriteOut would write.
func (s *Store) Unwritten() bool { return !s.opts.ReadOnly && s.journal.Written() < s.journal.Last() }

const (
	// gatherBytes is the longest piece of new data that waits for WriteOut in
	// memory: there, one system call takes many.
	gatherBytes = 32 << 10
	// writeBackBytes of unsynced data start a commit in the background, and four
	// times as much makes changes wait for one (see throttle): after a crash, opening the
	// store reads what was not synced.
	writeBackBytes = 32 << 20
)

// writeBack makes what is written durable, so that there is not too much of it
// that is not.
func (s *Store) writeBack() error {
	if s.recovered.Load() {
		if err := s.journal.Commit(context.Background(), s.journal.Last()); err != nil {
			return err
		}
	}
	if s.segments.Unsynced() < s.opts.tuning.writeBackBytes {
		return nil
	}
	return s.segments.Sync() // of cleaning, which has no records
}

// syncSegments is called by the journal before it syncs records.
func (s *Store) syncSegments() error {
	if !s.segmentDirty.Swap(false) {
		return nil
	}
	if err := s.segments.Sync(); err != nil {
		s.segmentDirty.Store(true)
		return err
	}
	return nil
}

// reapStep is how many dropped nodes are freed without giving way to a
// checkpoint's cut.
const reapStep = 64

// reapRetry is how long reaping waits after an error, such as a checkpoint that a
// full disk refused.
const reapRetry = time.Second

// reapLoop frees dropped map nodes in the background. An error delays it: on a
// full disk the nodes are what has to be freed before there is space again.
func (s *Store) reapLoop(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.forest.Wake():
		case <-retry.C:
		}
		for more := true; more; {
			var err error
			if more, err = s.reapOnce(ctx); err != nil {
				retry.Reset(reapRetry)
				break
			}
		}
	}
}

// reapOnce takes one step. When it says that there is no more, what was dropped
// before has been freed, by whoever it was.
func (s *Store) reapOnce(ctx context.Context) (more bool, err error) {
	if err := s.throttle(ctx); err != nil {
		return false, err
	}
	s.reaping.Lock()
	defer s.reaping.Unlock()
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if err := s.usable(); err != nil {
		return false, err
	}
	more, err = s.forest.Reap(reapStep)
	if err != nil && more && metadataDamage(err) {
		s.damage.Note("map nodes that were given up, whose space is not freed", err)
		return true, nil
	}
	if err != nil {
		err = s.fail(err)
	}
	return more, err
}

// loadIndex fills the fingerprint index from the extents of the last
// checkpoint, in the background: until it is done, some duplicates are stored
// again.
func (s *Store) loadIndex(ctx context.Context) {
	defer close(s.indexLoaded)
	start, n := time.Now(), 0
	err := s.extents.ScanStored(func(id extent.ID, x *extent.Extent) bool {
		if x.Fingerprint != (extent.Fingerprint{}) {
			s.index.Insert(&x.Fingerprint, id)
			n++
		}
		return ctx.Err() == nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.WithError(err).Warn("fingerprint index is incomplete: duplicates of older data may be stored again")
		return
	}
	s.log.WithFields(logrus.Fields{"extents": n, "took": time.Since(start)}).Debug("fingerprint index loaded")
}
