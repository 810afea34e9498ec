package backstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore/journal"
	"odx/backstore/rows"
)

// A store whose journal is damaged can still read records behind the damage. They
// are not replayed, since what they were to change is not what it was; which
// blocks they had changed is what an administrator has to restore.

const (
	maxUnused       = 1000 // bounds the list of unused records
	maxLoggedUnused = 100  // bounds how many of them are logged
)

// Change says what a record of the journal changes.
type Change struct {
	// Kind is that of the record: "write", "unmap", "map", "snapshot", …, or
	// "unknown".
	Kind string
	// What names a volume or file, by its number where its name is not known, a
	// snapshot, or "records".
	What string
	// Offset and Length are the bytes of it, in whole blocks; both are 0 where
	// the record is not about bytes.
	Offset int64
	Length int64
	// Detail says where a map or a clone comes from, the number of a snapshot, a
	// new name or size.
	Detail string
}

// where says what is changed.
func (c *Change) where() string {
	if c.Length == 0 {
		return c.What
	}
	return fmt.Sprintf("%s, %d bytes at %d", c.What, c.Length, c.Offset)
}

// UnusedChange is what records of the journal change that can be read and are not
// used, since the journal, or what they change, is damaged. Those of one kind whose
// ranges in a volume touch are one.
type UnusedChange struct {
	FirstLSN uint64
	LastLSN  uint64
	Records  int // of those from FirstLSN to LastLSN
	Change   Change
}

func (u UnusedChange) String() string {
	c := &u.Change
	text := fmt.Sprintf("record %d", u.FirstLSN)
	if u.LastLSN > u.FirstLSN {
		text = fmt.Sprintf("records %d to %d", u.FirstLSN, u.LastLSN)
	}
	if all := u.LastLSN - u.FirstLSN + 1; uint64(u.Records) < all {
		text = fmt.Sprintf("%d of %s", u.Records, text)
	}
	text += ": " + c.Kind + ", " + c.where()
	if c.Detail != "" {
		text += ", " + c.Detail
	}
	return text
}

// unusedRecords collects records that are not used. It is filled while the store is
// opened, by one goroutine.
type unusedRecords struct {
	// by has the changes that differ in the range alone, by their offsets; no two
	// of them touch. Its keys have no range.
	by    map[Change][]UnusedChange
	n     int // of them, at most maxUnused
	more  int // changes that did not fit
	found time.Time
	names names
	// torn: they are the tail that was not durable, which is no damage.
	torn bool
}

// Unused returns what readable records of the journal change that the store did not
// use when it was opened for reading alone: at most 1000 changes, in the order of
// their first records, and how many more there were.
func (s *Store) Unused() (list []UnusedChange, more int) { return s.unused.list(), s.unused.more }

// noteUnused lists a record that is not used.
func (s *Store) noteUnused(rec journal.Record) {
	u := &s.unused
	u.begin(s.volumes)
	r, err := decodeRecord(rec.Payload, s.sb.Unit)
	if err != nil {
		u.add(uint64(rec.LSN), Change{Kind: "unknown", What: "record", Detail: err.Error()})
		return
	}
	for _, c := range r.changes(&u.names) {
		u.add(uint64(rec.LSN), c)
	}
}

// begin makes u ready for records, of a store with these volumes.
func (u *unusedRecords) begin(volumes map[uint64]*Volume) {
	if u.by == nil {
		u.by, u.names = make(map[Change][]UnusedChange), names{known: volumes, later: make(map[uint64]rows.Name)}
		u.found = time.Now()
	}
}

// add joins a change with those that it touches, or adds it.
func (u *unusedRecords) add(lsn uint64, c Change) {
	key := c
	key.Offset, key.Length = 0, 0
	list, joined := u.by[key], UnusedChange{FirstLSN: lsn, LastLSN: lsn, Records: 1, Change: c}
	from, _ := slices.BinarySearchFunc(list, c.Offset, func(old UnusedChange, off int64) int {
		return cmp.Compare(old.Change.Offset+old.Change.Length, off)
	})
	to := from
	for to < len(list) && list[to].Change.Offset <= c.Offset+c.Length {
		joined.join(&list[to])
		to++
	}
	if from == to && u.n == maxUnused {
		u.more++
		return
	}
	u.n += 1 - (to - from)
	u.by[key] = slices.Replace(list, from, to, joined)
}

// join makes one of two changes that differ in the range alone.
func (u *UnusedChange) join(old *UnusedChange) {
	if u.FirstLSN != old.LastLSN { // a record can have several ranges
		u.Records++
	}
	u.Records += old.Records - 1
	c := &u.Change
	end := max(c.Offset+c.Length, old.Change.Offset+old.Change.Length)
	c.Offset = min(c.Offset, old.Change.Offset)
	c.Length = end - c.Offset
	u.FirstLSN, u.LastLSN = min(u.FirstLSN, old.FirstLSN), max(u.LastLSN, old.LastLSN)
}

// list returns the changes in the order of records, and of offsets in one record.
func (u *unusedRecords) list() (all []UnusedChange) {
	for _, list := range u.by {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b UnusedChange) int {
		return cmp.Or(cmp.Compare(a.FirstLSN, b.FirstLSN), cmp.Compare(a.Change.What, b.Change.What), cmp.Compare(a.Change.Offset, b.Change.Offset))
	})
	return all
}

// logUnused logs what is not used, once the store is open.
func (s *Store) logUnused() {
	list, more := s.Unused()
	for _, u := range list[:min(len(list), maxLoggedUnused)] {
		s.log.WithField("change", u.String()).Warn("a readable change of the journal is not used")
	}
	if more += max(len(list)-maxLoggedUnused, 0); more > 0 {
		s.log.WithField("changes", more).Warn("more readable changes of the journal are not used")
	}
}

// noteTorn lists the readable records from torn on, 0: there is none. They were not
// durable, and what comes before them, or their data, is not there: a power cut leaves
// that, and so does damage to what was written last.
func (s *Store) noteTorn(ctx context.Context, torn journal.LSN) error {
	if torn == 0 {
		return nil
	}
	s.unused.torn = s.unused.n == 0
	s.unused.begin(s.volumes)
	err := journal.ReadTorn(ctx, s.journalOptions(torn), s.noteUnused)
	if list, more := s.Unused(); err == nil && s.unused.torn {
		s.log.WithField("changes", len(list)+more).WithField("record", torn).
			Warn("the journal ends before this record, which was not durable when the store was left, or whose data was not: what it and later records changed is lost")
		s.logUnused()
	}
	return err
}

// changesBehind says what records change that can be read behind the damage of a
// journal that is refused; "" where there is none. It names the first of them.
func (s *Store) changesBehind(ctx context.Context, o journal.Options) string {
	next := o.First
	s.unused.begin(s.volumes)
	_, err := journal.Read(ctx, o, func(rec journal.Record) error {
		if rec.LSN != next {
			s.noteUnused(rec)
			return nil
		}
		next++
		if r, err := decodeRecord(rec.Payload, s.sb.Unit); err == nil {
			r.changes(&s.unused.names) // it can name what later records change
		}
		return nil
	})
	list, more := s.Unused()
	if err != nil || len(list) == 0 {
		return ""
	}
	var texts []string
	for i := range list[:min(len(list), maxNamedBehind)] {
		texts = append(texts, list[i].String())
	}
	if more += len(list) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return "; behind the damage can be read " + strings.Join(texts, "; ")
}

// maxNamedBehind bounds what an error names of a journal.
const maxNamedBehind = 3
