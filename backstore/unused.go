package backstore

import (
	"context"
	"fmt"
	"strings"

	"odx/backstore/damage"
	"odx/backstore/journal"
	"odx/backstore/record"
)

// A store whose journal is damaged can still read records after the damage. They
// are not replayed, since what they were to change is not what it was; which
// blocks they had changed is what an administrator has to restore.

// maxLoggedUnused bounds how many changes of unused records are logged.
const maxLoggedUnused = 100

// Unused returns what readable records of the journal change that the store did not
// use when it was opened for reading alone: at most 1000 changes, in the order of
// their first records, and how many more there were.
func (s *Store) Unused() (list []UnusedChange, more int) { return s.recovery.unused.List() }

// noteUnused lists a record that is not used.
func (rc *recovery) noteUnused(rec journal.Record) {
	rc.unused.Begin(rc.catalog.nameOf)
	rc.unused.Note(rec, rc.parts.sb.Unit)
}

// logUnused logs what is not used, once the store is open.
func (rc *recovery) logUnused() {
	list, more := rc.unused.List()
	for _, u := range list[:min(len(list), maxLoggedUnused)] {
		rc.log.WithField("change", u.String()).Warn("a readable change of the journal is not used")
	}
	if more += max(len(list)-maxLoggedUnused, 0); more > 0 {
		rc.log.WithField("changes", more).Warn("more readable changes of the journal are not used")
	}
}

// noteTorn lists the readable records from torn on, 0: there is none. They were not
// durable, and what comes before them, or their data, is not there: a power cut leaves
// that, and so does damage to what was written last.
func (s *Store) noteTorn(ctx context.Context, torn journal.LSN) error {
	if torn == 0 {
		return nil
	}
	s.recovery.unused.Torn = s.recovery.unused.Empty()
	s.recovery.unused.Begin(s.catalog.nameOf)
	err := journal.ReadTorn(ctx, s.journalOptions(torn), s.recovery.noteUnused)
	if list, more := s.Unused(); err == nil && s.recovery.unused.Torn {
		s.log.WithField("changes", len(list)+more).WithField("record", torn).
			Warn("the journal ends before this record, which was not durable when the store was left, or whose data was not: what it and later records changed is lost")
		s.recovery.logUnused()
	}
	return err
}

// changesAfter says what records change that can be read after the damage of a
// journal that is refused; "" where there is none. It names the first of them.
func (s *Store) changesAfter(ctx context.Context, o journal.Options) string {
	next := o.First
	s.recovery.unused.Begin(s.catalog.nameOf)
	_, err := journal.Read(ctx, o, func(rec journal.Record) error {
		if rec.LSN != next {
			s.recovery.noteUnused(rec)
			return nil
		}
		next++
		if r, err := record.Decode(rec.Payload, s.parts.sb.Unit); err == nil {
			s.recovery.unused.Follow(r) // it can name what later records change
		}
		return nil
	})
	list, more := s.Unused()
	if err != nil || len(list) == 0 {
		return ""
	}
	var texts []string
	for i := range list[:min(len(list), maxNamedAfter)] {
		texts = append(texts, list[i].String())
	}
	if more += len(list) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return "; readable after the damage: " + strings.Join(texts, "; ")
}

// maxNamedAfter bounds what an error names of a journal.
const maxNamedAfter = 3

// Damage returns what was found damaged, and which changes of a damaged journal are
// not used: at most 100 things, and how many more there were. What was not durable when
// the store was left is not damage.
func (s *Store) Damage() (found []Damaged, more int) {
	found, more = s.damage.All()
	if s.recovery.unused.Torn {
		return found, more
	}
	unused, moreUnused := s.Unused()
	for _, u := range unused {
		if len(found) == damage.MaxListed {
			more++
			continue
		}
		found = append(found, Damaged{What: u.Change.Where(), Error: "what the journal changes there is not used: " + u.String(), Found: s.recovery.unused.Found, Times: 1})
	}
	return found, more + moreUnused
}

// Mended returns the files that were mended since the store began to open, at most
// 100.
func (s *Store) Mended() []Mended { return s.damage.Mended() }
