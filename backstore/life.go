package backstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/owner"
)

// life knows whether operations may start. It ends in three ways: the store is closed, its
// owner is lost, or an error in the middle of a change has failed it.
type life struct {
	readOnly   bool
	log        *logrus.Entry
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
