package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/backstore"
)

const (
	// saveUseEvery bounds how often the use of a busy token is written to the
	// store, and so how much of its use a crash forgets.
	saveUseEvery = time.Second
	// retryKill is the pause before a token's end is stored again when the
	// store refused it.
	retryKill = 10 * time.Second
)

// acquire marks the token t as used and opens its snapshot. Until release it
// does not expire.
func (m *Manager) acquire(ctx context.Context, t *Token) (*entry, Snapshot, error) {
	m.mu.Lock()
	e, err := m.find(t)
	if err != nil {
		m.mu.Unlock()
		return nil, nil, err
	}
	e.users++
	m.unrest(e)
	m.mu.Unlock()

	s, err := m.openData(ctx, e)
	if err == nil {
		return e, s, nil
	}
	m.mu.Lock()
	m.leave(e, e.deadline)
	_, fate := m.find(t)
	m.mu.Unlock()
	switch {
	case fate != nil:
		return nil, nil, fate // it died since we found it
	case errors.Is(err, backstore.ErrNotFound), errors.Is(err, backstore.ErrRange):
		lost := fmt.Errorf("%w: its data is gone: %w", ErrCancelled, err)
		if err := m.kill(ctx, e, Cancelled); err != nil && !errors.Is(err, errDying) {
			return nil, nil, errors.Join(lost, err)
		}
		return nil, nil, lost
	}
	return nil, nil, err
}

// release ends a use: the inactivity timeout starts again.
func (m *Manager) release(ctx context.Context, e *entry) {
	now := time.Now()
	m.mu.Lock()
	e.rec.Uses++
	m.stats.Uses++
	e.rec.LastUsed = now.UTC()
	m.leave(e, now.Add(e.rec.Inactivity))
	m.mu.Unlock()
	if err := m.saveUse(ctx, e, saveUseEvery); err != nil && ctx.Err() == nil {
		m.log.WithError(err).WithField("token", e.id).Warn("the last use of a token was not recorded")
	}
}

// leave ends a use of e; the last one puts it under its deadline. m.mu is held.
func (m *Manager) leave(e *entry, deadline time.Time) {
	e.users--
	if e.users == 0 && e.dying == 0 {
		m.rest(e, deadline)
	}
}

// saveUse stores when and how often e was used, unless the store knows to
// within every.
func (m *Manager) saveUse(ctx context.Context, e *entry, every time.Duration) error {
	e.record.Lock()
	defer e.record.Unlock()
	m.mu.Lock()
	rec := e.rec
	m.mu.Unlock()
	if e.deleted || !rec.LastUsed.After(e.saved.Add(every)) {
		return nil
	}
	if err := m.store.PutRecords(ctx, backstore.Record{Key: tokenKey(livePrefix, e.id), Value: rec.encode()}); err != nil {
		return err
	}
	e.saved = rec.LastUsed
	return nil
}

// errDying: somebody else ended the token first.
var errDying = errors.New("token has ended already")

// kill ends a live token: from now on users are refused with the reason's
// error, and the store unpins the snapshot (those who read it finish). The
// first of several kills decides; the others wait until its records are in the
// store. The end is durable after a Flush.
func (m *Manager) kill(ctx context.Context, e *entry, reason Reason) error {
	e.record.Lock()
	defer e.record.Unlock()
	grave := tombstone{Reason: reason, Died: time.Now().UTC()}
	m.mu.Lock()
	if e.dying != 0 {
		m.mu.Unlock()
		return fmt.Errorf("%w: %w", errDying, e.dying.err())
	}
	e.dying = reason
	m.unrest(e)
	forgotten := m.dead.surplus()
	m.mu.Unlock()

	recs := []backstore.Record{deletion(livePrefix, e.id), {Key: tokenKey(tombstonePrefix, e.id), Value: grave.encode()}}
	for _, id := range forgotten {
		recs = append(recs, deletion(tombstonePrefix, id))
	}
	err := m.bury(ctx, e, recs)

	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		// It lives on, so that its snapshot is not forgotten.
		e.dying = 0
		if e.users == 0 {
			m.rest(e, time.Now().Add(retryKill))
		}
		return fmt.Errorf("end token %v (%v): %w", e.id, reason, err)
	}
	delete(m.live, e.id)
	m.dead.add(e.id, grave, forgotten)
	m.stats.PinnedBytes -= e.rec.pinned()
	m.count(reason)
	return nil
}

// endOnChange returns what a volume calls before the data of a change
// vulnerable token changes. It ends the token, so that a crash cannot keep the
// change without the end.
func (m *Manager) endOnChange(e *entry) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.kill(ctx, e, Cancelled); err != nil && !errors.Is(err, errDying) {
			return err
		}
		return nil
	}
}

// bury makes the end of e one step of the store. e.record is held.
func (m *Manager) bury(ctx context.Context, e *entry, recs []backstore.Record) error {
	err := backstore.ErrNotFound
	if e.rec.Type.holding() == inSnapshot {
		err = m.store.DeleteSnapshot(ctx, e.rec.Snapshot, recs...)
	}
	if errors.Is(err, backstore.ErrNotFound) {
		err = m.store.PutRecords(ctx, recs...)
	}
	if e.deleted = err == nil; e.deleted && e.watch != nil {
		e.watch.Stop()
	}
	return err
}

// count adds one to the counter of reason. m.mu is held.
func (m *Manager) count(reason Reason) {
	switch reason {
	case Expired:
		m.stats.Expired++
	case Cancelled:
		m.stats.Cancelled++
	case Revoked:
		m.stats.Revoked++
	case Deleted:
		m.stats.Deleted++
	}
}

// expire ends tokens at their deadlines until ctx ends.
func (m *Manager) expire(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		}
		for ctx.Err() == nil {
			e, wait := m.nextDue()
			if e == nil {
				timer.Reset(wait)
				break
			}
			if err := m.kill(ctx, e, Expired); err != nil && ctx.Err() == nil {
				m.log.WithError(err).Warn("a token that expired stays pinned for now")
			}
		}
	}
}

// nextDue returns a token whose deadline has passed, or how long to wait for one.
func (m *Manager) nextDue() (*entry, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) == 0 {
		return nil, time.Hour
	}
	if wait := time.Until(m.idle[0].deadline); wait > 0 {
		return nil, wait
	}
	return m.idle[0], 0
}
