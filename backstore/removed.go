package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/time/rate"

	"odx/backstore/segment"
)

// A file that another program removes while the store has it open can be read until it is
// closed: nothing but a look at the directory shows that it has no name any more.

// removedSegments returns the segments whose files another program has removed.
func (s *Store) removedSegments() (removed []segment.ID, err error) {
	// No checkpoint runs, which would remove and rename files.
	s.checkpoints.running.Lock()
	defer s.checkpoints.running.Unlock()
	there := s.parts.segments.List()
	names, err := s.opts.FS.List(s.opts.segmentPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, id := range there {
		if _, found := slices.BinarySearch(names, filepath.Base(s.opts.segmentFile(id))); !found && s.parts.usage.Live(id) > 0 {
			removed = append(removed, id)
		}
	}
	return removed, nil
}

// removedText describes a segment whose file was removed.
func (s *Store) removedText(id segment.ID) string {
	return fmt.Sprintf("%s was removed while the store had it open; the data in it can be read until the store is closed", s.opts.segmentFile(id))
}

// saveSegment moves the live data of a segment to another one, durably.
func (s *Store) saveSegment(ctx context.Context, id segment.ID) error {
	if err := s.life.writable(); err != nil {
		return err
	}
	s.parts.segments.Seal()
	s.cleaner.mu.Lock()
	err := s.cleaner.cleanSegment(ctx, id, rate.NewLimiter(rate.Inf, 0))
	s.cleaner.mu.Unlock()
	if err = errors.Join(err, s.Checkpoint(ctx)); err != nil {
		return err
	}
	if live := s.parts.usage.Live(id); live > 0 {
		return fmt.Errorf("%d blocks of it are being written", live)
	}
	return nil
}

// removedFiles saves the data of segments whose files were removed, before anything is
// read: the store can be closed in the meantime.
func (c *scrubber) removedFiles(ctx context.Context) error {
	s := c.store
	removed, err := s.removedSegments()
	if err != nil {
		return c.note(ctx, s.opts.segmentPath(), err)
	}
	for _, id := range removed {
		text := s.removedText(id)
		s.log.WithField("file", s.opts.segmentFile(id)).Error("the file of a segment was removed while the store had it open; its data is moved to another segment")
		if err := s.saveSegment(ctx, id); err != nil {
			if err := c.note(ctx, s.opts.segmentFile(id), fmt.Errorf("%s, and was not moved: %w; copy the volumes before", text, err)); err != nil {
				return err
			}
			continue
		}
		c.result.Metadata = append(c.result.Metadata, text+"; it was moved to another segment, and nothing is lost")
	}
	return nil
}
