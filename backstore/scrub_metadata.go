package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/layout"
)

// superblocksAndJournal scrubs what is neither rows nor data.
func (c *scrubber) superblocksAndJournal(ctx context.Context) error {
	mended, err := c.store.scrubSuperblocks()
	c.result.MendedBytes += mended
	if err != nil || c.store.opts.ReadOnly {
		return err // what is damaged of the journal is known then
	}
	lost, err := c.store.scrubJournal(ctx)
	c.result.Metadata = append(c.result.Metadata, lost...)
	return err
}

// scrubSuperblocks compares the copies of the superblock, and mends them.
func (s *Store) scrubSuperblocks() (mended int64, err error) {
	for _, in := range layout.Superblocks(s.opts.Dir) {
		name := filepath.Join(in, layout.SuperblockName)
		sb, err := layout.ReadSuperblock(s.opts.FS, name)
		if err == nil && sb == s.parts.sb {
			continue
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			return mended, err
		}
		if err == nil {
			err = fmt.Errorf("%s is not the superblock of this store", name)
		}
		if err := s.parts.sb.Write(s.opts.FS, in); err != nil {
			return mended, err
		}
		s.damage.NoteMended(name, err)
		mended += layout.SuperblockLength
	}
	return mended, nil
}

// scrubJournal reads the records that a start would need. What is damaged of them
// costs nothing yet: all they say is in memory, and a checkpoint makes them
// superfluous.
func (s *Store) scrubJournal(ctx context.Context) (lost []string, err error) {
	// No checkpoint runs, which would remove files that are being read.
	s.checkpoints.running.Lock()
	defer s.checkpoints.running.Unlock()
	damages, err := s.readJournal(ctx)
	if err != nil || len(damages) == 0 {
		return nil, err
	}
	s.log.WithField("damage", fmt.Sprint(damages)).Warn("the journal is damaged: a checkpoint replaces it")
	if err := s.checkpoint(ctx); err != nil {
		return nil, err
	}
	damages, err = s.readJournal(ctx)
	for _, d := range damages {
		lost = append(lost, d.String())
		s.damage.Note(d.File, errors.New(d.String()))
	}
	return lost, err
}

// readJournal returns what is damaged of the records that a start would need, as far
// as they are durable: files change after that while they are read.
func (s *Store) readJournal(ctx context.Context) (damages []journal.Damage, err error) {
	first, end := journal.LSN(s.pace.firstLSN.Load()), s.parts.journal.Durable()
	found, err := journal.Read(ctx, s.journalOptions(first), func(journal.Record) error { return nil })
	for _, d := range found.Damages {
		if d.First <= end {
			damages = append(damages, d)
		}
	}
	return damages, err
}
