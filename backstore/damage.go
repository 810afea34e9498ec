package backstore

import (
	"sync"
	"time"

	"odx/backstore/extent"
)

// maxDamage bounds what Damage lists.
const maxDamage = 100

// Damaged is something of the store that was found damaged since it was opened,
// and that no copy mended.
type Damaged struct {
	// What cannot be read right: a range of a volume, a segment, a part of the
	// metadata.
	What string `json:"what"`
	// Error says why.
	Error string `json:"error"`
	// Found is when it was found first, and Times how often since.
	Found time.Time `json:"found"`
	Times int       `json:"times"`
}

// damageLog remembers damage, so that it is logged once.
type damageLog struct {
	mu   sync.Mutex // guards what follows
	list []*Damaged
	by   map[string]*Damaged
	more int // that did not fit
}

// Damage returns what was found damaged, at most 100 things, and how many more
// there were.
func (s *Store) Damage() (found []Damaged, more int) {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	for _, d := range s.damage.list {
		found = append(found, *d)
	}
	return found, s.damage.more
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
