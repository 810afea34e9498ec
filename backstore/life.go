package backstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/backstore/blockmap"
	"odx/backstore/damage"
	"odx/backstore/extent"
	"odx/backstore/invariant"
	"odx/backstore/journal"
	"odx/owner"
)

// life knows whether operations may start, and what an error means for the store. It ends in
// three ways: the store is closed, its owner is lost, or an error in the middle of a change
// has failed it.
type life struct {
	readOnly   bool
	log        *logrus.Entry
	damage     *damage.Log
	owner      *owner.Owner // nil before it is claimed
	failed     atomic.Pointer[error]
	closed     atomic.Bool
	cancel     context.CancelFunc // ends the background goroutines; nil before they run
	background sync.WaitGroup
}

// usable returns why no operation may start, if that is so.
func (l *life) usable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	if err := l.owner.Check(); err != nil {
		return err
	}
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes the store read-only: the state in memory may have a half-done
// operation in it, which must reach neither the journal nor a checkpoint. What
// the journal holds is right, so opening the store again is the way on. Reads go
// on.
func (l *life) fail(err error) error {
	prove(err)
	err = fmt.Errorf("the store is read-only after a metadata error, restart it: %w", err)
	if l.failed.CompareAndSwap(nil, &err) {
		l.log.WithError(err).Error("the store is read-only from now on")
	}
	return err
}

// writable returns why nothing may be changed, if that is so.
func (l *life) writable() error {
	if l.readOnly {
		return ErrStoreReadOnly
	}
	return l.usable()
}

// prove panics, in builds with invariants, when err says that metadata
// contradict each other: nothing but a fault of the store makes them.
func prove(err error) {
	if invariant.Enabled && (errors.Is(err, blockmap.ErrInconsistent) || errors.Is(err, extent.ErrInconsistent)) {
		invariant.Violated("%v", err)
	}
}

// tolerate notes damage and returns nil where a store is only to be read.
func (l *life) tolerate(what string, err error) error {
	if err == nil || !l.readOnly || !metadataDamage(err) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, journal.ErrCorrupt) {
		return err
	}
	l.damage.Note(what, err)
	return nil
}

// unread returns the error of an operation on a tree that could not read the rows
// for blocks from byte off on, and has changed nothing. It is a CorruptError if
// that is damage.
func (l *life) unread(name string, off int64, err error) error {
	if !metadataDamage(err) {
		return err
	}
	err = &CorruptError{Name: name, Offset: off, Err: err}
	l.damage.Note(name, err)
	return err
}
