package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"odx/backstore/segment"
)

const (
	// defaultSpareTime is longer than it takes from one checkpoint to the next under
	// load.
	defaultSpareTime = 10 * time.Second
	// sparePeriod is how often the store looks for files that waited too long.
	sparePeriod = time.Second
)

// spareLoop gives the space of spare segments back until ctx ends.
func (s *Store) spareLoop(ctx context.Context) {
	tick := time.NewTicker(sparePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if free, err := s.opts.FS.Free(s.opts.Dir); s.lowSpace.Load() || err == nil && free < lowSpace {
				continue // what is given up now, another program gets
			}
			s.dropSpares(now.Add(-s.opts.tuning.spareTime))
		}
	}
}

// dropSpares gives up the spare segments that have waited since before then.
func (s *Store) dropSpares(before time.Time) {
	if err := s.segments.DropSpares(before); err != nil {
		s.log.WithError(err).Warn("a spare segment keeps its space; opening the store finds it again")
	}
}

// removeSegment removes a segment without live data. One that cannot be removed,
// since it is a directory, immutable, or of another store, costs its space and nothing
// else: the next checkpoint tries again.
func (s *Store) removeSegment(id segment.ID) error {
	name := s.segmentFile(id)
	err := s.segments.Remove(id)
	if errors.Is(err, segment.ErrClosed) {
		return err
	}
	if errors.Is(err, segment.ErrBusy) {
		return nil // it is removed with the next checkpoint
	}
	s.noteLeft(name, err)
	return nil
}

// noteLeft notes that a file that is not needed any more cannot be removed, and, for
// no error, that it is gone.
func (s *Store) noteLeft(name string, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.damage.Settle(name)
		return
	}
	s.damage.Note(name, fmt.Errorf("it holds nothing that is needed, and cannot be removed: %w; it is left where it is, and tried again", err))
}
