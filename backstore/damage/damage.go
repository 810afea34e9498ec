// Package damage remembers what was found damaged in a store, and what was mended, so that
// each is logged once.
package damage

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/meta"
)

// MaxListed bounds what Damage lists.
const MaxListed = 100

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

// Log remembers damage, so that it is logged once.
type Log struct {
	log *logrus.Entry

	mu   sync.Mutex // guards what follows
	list []*Damaged
	by   map[string]*Damaged
	more int // that did not fit

	mended []*Mended
}

// NewLog returns a list with nothing in it.
func NewLog(log *logrus.Entry) *Log { return &Log{log: log} }

// All returns what is in the list.
func (l *Log) All() (found []Damaged, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.list {
		found = append(found, *d)
	}
	return found, l.more
}

// Note notes damage, and logs it when it is new.
func (l *Log) Note(what string, err error) {
	l.mu.Lock()
	known := l.by[what]
	switch {
	case known != nil:
		known.Times++
	case len(l.list) == MaxListed:
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
		l.log.WithError(err).WithField("what", what).Error("stored data is damaged")
	}
}

// Any reports whether anything is in the list.
func (l *Log) Any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) > 0
}

// Settle takes damage off the list: it is no more.
func (l *Log) Settle(what string) {
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

// NoteMended notes, and logs when it is new, that a file was mended.
func (l *Log) NoteMended(file string, why error) {
	if !l.addMended(file, why) {
		return
	}
	level := logrus.WarnLevel
	if errors.Is(why, meta.ErrNoCopy) {
		level = logrus.InfoLevel // mostly it is what a power cut has left
	}
	l.log.WithError(why).WithField("file", file).Log(level, "what was damaged in this file was mended from its other copy")
}

// Mended returns the files that were mended since the store began to open, at most
// MaxListed.
func (l *Log) Mended() (list []Mended) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.mended {
		list = append(list, *m)
	}
	return list
}

// addMended reports whether the file was not mended before.
func (l *Log) addMended(file string, why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.mended {
		if m.File == file {
			m.Times++
			return false
		}
	}
	if len(l.mended) < MaxListed {
		l.mended = append(l.mended, &Mended{File: file, Why: why.Error(), When: time.Now(), Times: 1})
	}
	return true
}
