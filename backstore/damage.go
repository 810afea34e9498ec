package backstore

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/extent"
	"odx/backstore/meta"
)

// maxDamage bounds what Damage lists.
const maxDamage = 100

// Damaged is something of the store that was found damaged since it was opened,
// and that no copy mended.
type Damaged struct {
	// What cannot be read right: a range of a volume, a segment, a part of the
	// metadata.
	What string
	// Error says why.
	Error string
	// Found is when it was found first, and Times how often since.
	Found time.Time
	Times int
}

// damageLog remembers damage, so that it is logged once.
type damageLog struct {
	mu   sync.Mutex // guards what follows
	list []*Damaged
	by   map[string]*Damaged
	more int // that did not fit

	mended []*Mended
}

// Damage returns what was found damaged, and which changes of a damaged journal are
// not used: at most 100 things, and how many more there were. What was not durable when
// the store was left is not damage.
func (s *Store) Damage() (found []Damaged, more int) {
	found, more = s.damage.all()
	if s.unused.Torn {
		return found, more
	}
	unused, moreUnused := s.Unused()
	for _, u := range unused {
		if len(found) == maxDamage {
			more++
			continue
		}
		found = append(found, Damaged{What: u.Change.Where(), Error: "what the journal changes there is not used: " + u.String(), Found: s.unused.Found, Times: 1})
	}
	return found, more + moreUnused
}

// all returns what is in the list.
func (l *damageLog) all() (found []Damaged, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.list {
		found = append(found, *d)
	}
	return found, l.more
}

// noteDamage notes damage, and logs it when it is new.
func (s *Store) noteDamage(what string, err error) {
	l := &s.damage
	l.mu.Lock()
	known := l.by[what]
	switch {
	case known != nil:
		known.Times++
	case len(l.list) == maxDamage:
		l.more++
	default:
		if l.by == nil {
			l.by = make(map[string]*Damaged)
		}
		l.by[what] = &Damaged{What: what, Error: err.Error(), Found: time.Now(), Times: 1}
		l.list = append(l.list, l.by[what])
	}
	fresh := known == nil && l.by[what] != nil
	l.mu.Unlock()
	if fresh {
		s.log.WithError(err).WithField("what", what).Error("stored data is damaged")
	}
}

// settle takes damage off the list: it is no more.
func (l *damageLog) settle(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.by[what]; d != nil {
		delete(l.by, what)
		l.list = slices.DeleteFunc(l.list, func(one *Damaged) bool { return one == d })
	}
}

// Mended is something that was damaged in one copy and was made right from the other.
type Mended struct {
	File string
	Why  string // what was wrong with it
	// When is when it was mended first, and Times how often.
	When  time.Time
	Times int
}

// Mended returns the files that were mended since the store began to open, at most
// 100.
func (s *Store) Mended() (list []Mended) {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	for _, m := range s.damage.mended {
		list = append(list, *m)
	}
	return list
}

// noteMended notes, and logs when it is new, that a file was mended.
func (s *Store) noteMended(file string, why error) {
	if !s.damage.addMended(file, why) {
		return
	}
	level := logrus.WarnLevel
	if errors.Is(why, meta.ErrNoCopy) {
		level = logrus.InfoLevel // mostly it is what a power cut has left
	}
	s.log.WithError(why).WithField("file", file).Log(level, "what was damaged in this file was mended from its other copy")
}

// addMended reports whether the file was not mended before.
func (l *damageLog) addMended(file string, why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.mended {
		if m.File == file {
			m.Times++
			return false
		}
	}
	if len(l.mended) < maxDamage {
		l.mended = append(l.mended, &Mended{File: file, Why: why.Error(), When: time.Now(), Times: 1})
	}
	return true
}

// unread returns the error of an operation on a tree that could not read the rows
// for blocks from byte off on, and has changed nothing. It is a CorruptError if
// that is damage.
func (s *Store) unread(name string, off int64, err error) error {
	if !metadataDamage(err) {
		return err
	}
	err = &CorruptError{Name: name, Offset: off, Err: err}
	s.noteDamage(name, err)
	return err
}

// lookupError is unread for a look-up of n blocks: it finds the first of them
// that cannot be looked up.
func (s *Store) lookupError(t tree, off int64, n int, err error) error {
	if !metadataDamage(err) {
		return err
	}
	first := off &^ (BlockLength - 1)
	var loc [1]extent.Location
	var slot [1]extent.Slot
	for i := range n {
		at := first + int64(i)*BlockLength
		if one := t.lookup(s, uint64(at/BlockLength), loc[:], slot[:]); one != nil {
			return s.unread(t.name(), at, one)
		}
	}
	return s.unread(t.name(), off, err)
}
