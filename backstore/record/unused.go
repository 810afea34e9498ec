package record

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"odx/backstore/journal"
	"odx/backstore/rows"
)

// MaxUnused bounds the list of unused changes.
const MaxUnused = 1000

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
	text += ": " + c.Kind + ", " + c.Where()
	if c.Detail != "" {
		text += ", " + c.Detail
	}
	return text
}

// Unused collects what records change that are not used. It is filled while a
// store is opened, by one goroutine.
type Unused struct {
	// by has the changes that differ in the range alone, by their offsets; no two
	// of them touch. Its keys have no range.
	by    map[Change][]UnusedChange
	n     int // of them, at most MaxUnused
	more  int // changes that did not fit
	Found time.Time
	names Names
	// Torn: they are the tail that was not durable, which is no damage.
	Torn bool
}

// Begin makes u ready for records of a store in which volumes and files are known by
// these names.
func (u *Unused) Begin(known func(number uint64) (rows.Name, bool)) {
	if u.by == nil {
		u.by, u.names = make(map[Change][]UnusedChange), Names{known: known}
		u.Found = time.Now()
	}
}

// Note adds what a record changes.
func (u *Unused) Note(rec journal.Record, unit int) {
	r, err := Decode(rec.Payload, unit)
	if err != nil {
		u.add(uint64(rec.LSN), Change{Kind: "unknown", What: "record", Detail: err.Error()})
		return
	}
	for _, c := range r.Changes(&u.names) {
		u.add(uint64(rec.LSN), c)
	}
}

// Follow takes the names that a record gives, which is used.
func (u *Unused) Follow(r Record) { r.Changes(&u.names) }

// Named returns the name that the records give to a volume or file.
func (u *Unused) Named(number uint64) (rows.Name, bool) {
	key, ok := u.names.later[number]
	return key, ok
}

// add joins a change with those that it touches, or adds it.
func (u *Unused) add(lsn uint64, c Change) {
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
	if from == to && u.n == MaxUnused {
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

// List returns the changes in the order of records, and of offsets in one record.
func (u *Unused) List() (all []UnusedChange, more int) {
	for _, list := range u.by {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b UnusedChange) int {
		return cmp.Or(cmp.Compare(a.FirstLSN, b.FirstLSN), cmp.Compare(a.Change.What, b.Change.What), cmp.Compare(a.Change.Offset, b.Change.Offset))
	})
	return all, u.more
}

// Empty reports whether there is no change in u.
func (u *Unused) Empty() bool { return u.n == 0 }
