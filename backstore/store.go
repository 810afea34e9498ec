// Package backstore is the extent store: volumes, snapshots and small records,
// kept in one directory.
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
//	catalog.mu (guards the tables of volumes and snapshots)
//	recordTable.mu (guards the records)
//	locks inside blockmap, extent, pages; then the journal's
//
// No lock of this list but opMu (shared) is held while data is read or written;
// metadata that is not cached is read under them.
package backstore

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/backstore/damage"
	"odx/backstore/scrubplan"
)

// Store is an open store. It is safe for concurrent use. It composes the components
// below, each of which says in its own file what it guards; what is left here belongs to
// more than one of them.
type Store struct {
	opts   Options
	log    *logrus.Entry
	parts  parts
	damage *damage.Log
	life   life
	moved  bool // it is not where its superblock says

	// opMu is shared by every operation, and held exclusively for the cut of a checkpoint.
	opMu sync.RWMutex

	// Memory and journal.
	catalog  catalog
	records  recordTable
	writer   writer
	reader   reader
	durable  syncer
	recovery recovery

	// Checkpoints and space.
	checkpoints checkpointer
	pace        pacer
	space       space
	cleaner     cleaner
	copies      copyBuffers
	scrubs      *scrubplan.Plan
	scrubRate   atomic.Int64 // bytes per second of scheduled scrubs
	background  background

	storeDuplicates atomic.Bool // see Options

	// auditMu is held by Stats and by Check: one holds references to trees that
	// the other would not find an owner for. Outermost of all locks.
	auditMu sync.Mutex

	reaping sync.Mutex // held for a step of reaping; outside of opMu

	reverting sync.Mutex // held for a revert; outside of opMu

	names  names
	series series

	// What lies in segments of other stores, and what others have in those of this one.
	aliases aliases
	holds   holds
	sharing sync.Mutex // held while the superblock gets the flag; guards it
}

// DedupUnit returns the largest extent in bytes.
func (s *Store) DedupUnit() int { return s.parts.sb.Unit * BlockLength }

// Flush makes every change that returned before durable.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.life.usable(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return nil
	}
	s.durable.unflushed.Store(0)
	return spaceError(s.parts.journal.Commit(ctx, s.parts.journal.Last()))
}

// WriteOut gives every change that returned before to the kernel: it outlives
// this process then, but not a power cut. It waits for the disk only where the
// kernel has no room for more, and where a new file of the journal begins, and for
// changes to be durable in a store that machines share. After an error the changes are
// there, and may be lost with the process.
func (s *Store) WriteOut(ctx context.Context) error {
	if s.opts.ReadOnly {
		return nil
	}
	if s.opts.Shared {
		return spaceError(s.parts.journal.Commit(ctx, s.parts.journal.Last()))
	}
	return spaceError(s.parts.journal.Write(ctx, s.parts.journal.Last()))
}

// Unwritten reports whether there are changes that WriteOut would write.
func (s *Store) Unwritten() bool {
	if s.opts.ReadOnly {
		return false
	}
	if s.opts.Shared {
		return s.parts.journal.Durable() < s.parts.journal.Last()
	}
	return s.parts.journal.Written() < s.parts.journal.Last()
}
