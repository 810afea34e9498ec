package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/journal"
)

// A store that is opened with Options.ReadOnly shows what is left of it: what is
// damaged is listed by Damage instead of refused.

// tolerate notes damage and returns nil where a store is only to be read.
func (s *Store) tolerate(what string, err error) error {
	if err == nil || !s.opts.ReadOnly || !metadataDamage(err) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, journal.ErrCorrupt) {
		return err
	}
	s.noteDamage(what, err)
	return nil
}

// replayUndamaged replays the records of a damaged journal, up to the first that
// is missing or cannot be applied.
func (s *Store) replayUndamaged(ctx context.Context, o journal.Options) error {
	next, ended := o.First, false
	found, err := journal.Read(ctx, o, func(rec journal.Record) error {
		ended = ended || rec.LSN != next
		if ended {
			return nil // Read goes on to what else is damaged
		}
		next++
		err := s.redo(rec)
		if err != nil && !errors.Is(err, journal.ErrCut) {
			s.noteDamage(fmt.Sprintf("journal from record %d on", rec.LSN), err)
			ended, err = true, nil
		}
		return err
	})
	for _, d := range found.Damages {
		s.noteDamage(d.File, errors.New(d.String()))
	}
	return s.tolerate("journal", err)
}
