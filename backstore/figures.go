package backstore

import (
	"fmt"
	"time"

	"odx/latency"
)

// Figures are counters and sizes of an open store that are known without reading it: for
// monitoring, which reads them every few seconds. Stats has what has to be counted.
type Figures struct {
	// Snapshots is the number of snapshots that are not deleted.
	Snapshots int
	// LiveBytes to CapacityBytes are those of Stats.
	LiveBytes, PhysicalBytes, DiskBytes, ReserveBytes, MetadataBytes int64
	ReclaimableBytes, JournalBytes, CapacityBytes                    int64
	// AdoptedBytes to LentDeadBytes are those of Stats.
	AdoptedBytes, LentBytes, LentDeadBytes int64
	// FreeBytes is how much new data fits.
	FreeBytes int64
	// Full: the file system has no room for new data.
	Full bool
	// Failed is why the store is read-only from now on, nil if it is not.
	Failed error
	// Damaged is the number of things that were found damaged since the store was opened,
	// and FirstDamage describes one of them; Mended those that were mended from a copy,
	// at most 100.
	Damaged, Mended int
	FirstDamage     string

	Journal     JournalFigures
	Checkpoints CheckpointFigures
	Cleaning    CleaningFigures
	// LastScrub is the last scrub; its Ended is zero if there was none, or the record of
	// it cannot be read.
	LastScrub LastScrub
}

// JournalFigures count since the store was opened.
type JournalFigures struct {
	// Syncs are those that made records and their data durable.
	Syncs    latency.Counts
	Failures uint64
}

// CheckpointFigures count since the store was opened.
type CheckpointFigures struct {
	Took     latency.Counts
	Failures uint64
	// Failure is why the last one failed, nil if it did not.
	Failure error
	// Last is when the last one was stored; zero: none was.
	Last time.Time
}

// CleaningFigures count since the store was opened.
type CleaningFigures struct {
	// MovedBytes is live data that was moved out of segments that are mostly dead,
	// Segments how many of those were emptied so, Failures the attempts that failed.
	MovedBytes, Segments, Failures uint64
	// BroughtHomeBytes is data that was moved here from segments of other stores.
	BroughtHomeBytes uint64
}

// Figures returns figures about the store. It waits for no operation, but can wait for the
// disk: for the space of the file system, and for the record of the last scrub.
func (s *Store) Figures() (Figures, error) {
	if s.life.closed.Load() {
		return Figures{}, ErrClosed
	}
	f := Figures{
		LiveBytes: s.LiveBytes(), PhysicalBytes: s.PhysicalBytes(), DiskBytes: s.DiskBytes(), ReserveBytes: s.ReserveBytes(),
		MetadataBytes: s.parts.kv.Stats().Bytes, JournalBytes: s.journalBytes(), CapacityBytes: s.opts.CapacityBytes,
		Checkpoints: s.checkpoints.figures(),
		Cleaning:    CleaningFigures{s.cleaner.moved.Load(), s.cleaner.cleaned.Load(), s.cleaner.failures.Load(), s.cleaner.broughtHome.Load()},
		Mended:      len(s.damage.Mended()),
	}
	ill := s.Ailments()
	f.Failed, f.Full = ill.Failed, ill.Full
	f.AdoptedBytes, f.LentBytes, f.LentDeadBytes = s.AdoptedBytes(), s.LentBytes(), s.LentDeadBytes()
	f.ReclaimableBytes = s.reclaimable(f.PhysicalBytes, f.LiveBytes-f.AdoptedBytes)
	if list, more := s.damage.All(); len(list) > 0 {
		f.Damaged, f.FirstDamage = len(list)+more, fmt.Sprintf("%s: %s", list[0].What, list[0].Error)
	}
	if s.parts.journal != nil {
		f.Journal.Syncs, f.Journal.Failures = s.parts.journal.Syncs()
	}
	f.Snapshots = s.catalog.countSnapshots()
	f.LastScrub, _, _ = s.LastScrub()
	var err error
	f.FreeBytes, err = s.FreeBytes()
	return f, err
}

// Ailments are what can be wrong with an open store.
type Ailments struct {
	// Failed is why the store is read-only from now on, Checkpoint why the last checkpoint
	// failed; nil for none.
	Failed, Checkpoint error
	// Full: the file system has no room for new data.
	Full bool
	// Syncing is for how long the disk has been asked to make data durable, 0 if it is not.
	Syncing time.Duration
}

// Ailments returns what is wrong with the store. It never waits for the disk.
func (s *Store) Ailments() Ailments {
	a := Ailments{Full: s.space.low.Load(), Checkpoint: s.checkpoints.failure()}
	if err := s.life.failed.Load(); err != nil {
		a.Failed = *err
	}
	if s.parts.journal != nil {
		a.Syncing = s.parts.journal.Syncing()
	}
	return a
}

// countSnapshots returns how many snapshots there are.
func (c *catalog) countSnapshots() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.snapshots)
}

// figures returns what was counted.
func (c *checkpointer) figures() CheckpointFigures {
	f := CheckpointFigures{Took: c.took.Counts(), Failures: c.failures.Load(), Failure: c.failure()}
	if last := c.last.Load(); last != 0 {
		f.Last = time.Unix(0, last)
	}
	return f
}
