package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"odx/backstore/segment"
)

const (
	// sparePeriod is how often the store looks for files that waited too long.
	sparePeriod = time.Second
)

// spareLoop gives the space of spare segments back until ctx ends.
func (sp *space) spareLoop(ctx context.Context) {
	if sp.opts.Shared {
		sp.removeSpares()
		return
	}
	tick := time.NewTicker(sparePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if free, err := sp.opts.FS.Free(sp.opts.Dir); sp.low.Load() || err == nil && free < lowSpace {
				continue // what is given up now, another program gets
			}
			sp.dropSpares(now.Add(-sp.opts.tuning.spareTime))
		}
	}
}

// removeSpares removes the spare segments that earlier versions have left in a pool, where none
// is used again.
func (sp *space) removeSpares() {
	if sp.opts.ReadOnly {
		return
	}
	names, err := sp.opts.FS.List(sp.opts.segmentPath())
	for _, name := range names {
		if segment.IsSpare(name) {
			err = errors.Join(err, sp.opts.FS.Remove(filepath.Join(sp.opts.segmentPath(), name)))
		}
	}
	if err != nil {
		sp.log.WithError(err).Warn("spare segments keep their space until the store is opened again")
	}
}

// removeSegment removes a segment without live data. One that cannot be removed,
// since it is a directory, immutable, or of another store, costs its space and nothing
// else: the next checkpoint tries again.
func (sp *space) removeSegment(id segment.ID) error {
	name := sp.opts.segmentFile(id)
	err := sp.parts.segments.Remove(id)
	if errors.Is(err, segment.ErrClosed) {
		return err
	}
	if errors.Is(err, segment.ErrBusy) {
		return nil // it is removed with the next checkpoint
	}
	sp.noteLeft(name, err)
	return nil
}

// noteLeft notes that a file that is not needed any more cannot be removed, and, for
// no error, that it is removed.
func (sp *space) noteLeft(name string, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		sp.damage.Settle(name)
		return
	}
	if sp.opts.ReadOnly { // nothing is removed, and what is needed of it is reported as damage
		sp.log.WithError(err).WithField("file", name).Warn("a file with the name of one of the store cannot be opened; it is ignored where nothing needs it")
		return
	}
	sp.damage.Note(name, fmt.Errorf("it holds nothing that is needed, and cannot be removed: %w; it is left where it is, and tried again", err))
}
