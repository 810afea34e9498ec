package backstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/layout"
)

// superblocksAndJournal scrubs what is neither rows nor data.
func (c *scrubber) superblocksAndJournal(ctx context.Context) error {
	for _, in := range layout.Superblocks(c.store.opts.Dir) {
		mended, err := c.store.scrubSuperblock(in)
		c.result.MendedBytes += mended
		if err := c.note(ctx, filepath.Join(in, layout.SuperblockName), err); err != nil {
			return err
		}
	}
	if c.store.opts.ReadOnly {
		return nil // what is damaged of the journal is known then
	}
	lost, err := c.store.scrubJournal(ctx)
	c.result.Metadata = append(c.result.Metadata, lost...)
	return c.note(ctx, filepath.Join(c.store.opts.Dir, layout.JournalDir), err)
}

// note adds an error to the result, so that the scrub goes on: the data is verified
// whatever is wrong with the metadata. It returns the error of a scrub that has to end.
func (c *scrubber) note(ctx context.Context, what string, err error) error {
	if end := errors.Join(ctx.Err(), c.store.life.usable()); end != nil || err == nil {
		return end
	}
	c.store.damage.Note(what, err)
	c.result.Metadata = append(c.result.Metadata, fmt.Sprintf("%s: %v", what, err))
	return nil
}

// scrubSuperblock verifies a copy of the superblock, and writes one that cannot be read or
// is another one again: the store has it in memory.
func (s *Store) scrubSuperblock(in string) (mended int64, err error) {
	name := filepath.Join(in, layout.SuperblockName)
	sb, why := layout.ReadSuperblock(s.opts.FS, name)
	if why == nil && sb == s.parts.sb {
		return 0, nil
	}
	if why == nil {
		why = fmt.Errorf("%s is not the superblock of this store", name)
	}
	if err := s.parts.sb.Write(s.opts.FS, in); err != nil {
		return 0, fmt.Errorf("%w; this copy of the superblock cannot be mended: %w", why, accessError(err))
	}
	s.damage.Settle(name)
	s.damage.NoteMended(name, why)
	return layout.SuperblockLength, nil
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
