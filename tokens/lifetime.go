package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

const (
	// saveUseEvery bounds how often the use of a busy token is written to the
	// store, and so how much of its use a crash forgets.
	saveUseEvery = time.Second
	// retryKill is the pause before a token's end is stored again when the
	// store refused it.
	retryKill = 10 * time.Second
)

// use is one operation that uses a token.
type use struct {
	entry    *entry
	snapshot offload.Snapshot
	// ctx ends when the operation's does, and with the token's error when the
	// token ends, where policy asks for that.
	ctx   context.Context
	close context.CancelCauseFunc
}

// err returns why an operation that ended with an error of its context did: its
// token ended, or its caller did not want it any more.
func (u *use) err(err error) error {
	if err == nil || u.ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(u.ctx); cause != nil {
		return cause
	}
	return err
}

// useContext is the context of a use of a token. Its Err asks that of the caller,
// too: what a context that was derived learns a little later.
type useContext struct {
	context.Context
	caller context.Context
}

func (c useContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	return c.caller.Err()
}

// acquire marks the token of e as used and opens its data, if it is for the
// requester. Until release it does not expire.
func (m *Manager) acquire(ctx context.Context, e *entry, who Requester) (*use, error) {
	u := &use{entry: e, ctx: ctx, close: func(error) {}}
	if m.policy.RunningCopy == AbortCopy {
		var derived context.Context
		derived, u.close = context.WithCancelCause(ctx)
		u.ctx = useContext{derived, ctx}
	}
	if err := m.join(u, who); err != nil {
		u.close(nil)
		return nil, err
	}
	var err error
	if u.snapshot, err = m.openData(u.ctx, u.entry); err == nil {
		return u, nil
	}
	err = u.err(err)
	u.close(nil)
	if u.entry.located != nil {
		return nil, err
	}
	m.mu.Lock()
	m.part(u, u.entry.deadline)
	fate := m.usable(u.entry)
	m.mu.Unlock()
	switch {
	case fate != nil:
		return nil, fate // it died since we found it
	case errors.Is(err, backstore.ErrNotFound), errors.Is(err, blockdev.ErrRange):
		// Not %w: a caller that asks which error it is gets the token's.
		lost := fmt.Errorf("%w: %v: %v", ErrCancelled, DataGone, err)
		if err := m.giveUp(ctx, u.entry, DataGone); err != nil {
			return nil, errors.Join(lost, err)
		}
		return nil, lost
	}
	return nil, err
}

// join makes u one of the users of its token, if that is for the requester.
func (m *Manager) join(u *use, who Requester) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := u.entry
	if err := m.usable(e); err != nil {
		return err
	}
	if e.located != nil {
		return m.admitHash(e.located, who)
	}
	if err := m.admit(&e.rec, who); err != nil {
		return err
	}
	e.users++
	m.unrest(e)
	if m.policy.RunningCopy == AbortCopy {
		if e.aborts == nil {
			e.aborts = make(map[*use]context.CancelCauseFunc)
		}
		e.aborts[u] = u.close
	}
	return nil
}

// release ends a use: the inactivity timeout starts again.
func (m *Manager) release(ctx context.Context, u *use) {
	u.snapshot.Release()
	u.close(nil)
	e, now := u.entry, time.Now()
	m.mu.Lock()
	e.rec.Uses++
	m.stats.Uses++
	e.rec.LastUsed = now.UTC()
	m.part(u, now.Add(e.rec.Inactivity))
	m.mu.Unlock()
	if e.located != nil {
		return
	}
	if err := m.saveUse(ctx, e, saveUseEvery); err != nil && ctx.Err() == nil {
		m.log.WithError(err).WithField("token", e.id).Warn("the last use of a token was not recorded")
	}
}

// part ends a use of a token; the last one puts it under its deadline. m.mu is
// held.
func (m *Manager) part(u *use, deadline time.Time) {
	e := u.entry
	if e.located != nil {
		return
	}
	delete(e.aborts, u)
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
	if every > 0 && !m.useRecords.Allow() {
		return nil // a later use, or Close, makes up for it
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
//
// cause is why the manager cancels it, 0 when it was not the manager's wish.
func (m *Manager) kill(ctx context.Context, e *entry, reason Reason, cause Cause) error {
	e.record.Lock()
	defer e.record.Unlock()
	m.mu.Lock()
	if e.surrendered && reason != Revoked {
		reason = Deleted // as its user asked
	}
	grave := tombstone{Reason: reason, Cause: cause, Died: time.Now().UTC()}
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
		if e.users == 0 && m.live[e.id] == e {
			m.rest(e, time.Now().Add(retryKill))
		}
		return fmt.Errorf("end token %v (%v): %w", e.id, reason, err)
	}
	if m.live[e.id] == e {
		delete(m.live, e.id)
		m.tally(&e.rec, -1)
		m.stats.PinnedBytes -= e.rec.pinned()
	}
	m.dead.add(e.id, grave, forgotten)
	m.ended(e, grave)
	for _, abort := range e.aborts {
		abort(m.fate(e.id))
	}
	return nil
}

// endOnChange returns what a volume calls before the data of a change
// vulnerable token changes. It ends the token, so that a crash cannot keep the
// change without the end.
func (m *Manager) endOnChange(e *entry) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.kill(ctx, e, Cancelled, Overwritten); err != nil && !errors.Is(err, errDying) {
			return err
		}
		return nil
	}
}

// EndOrphans ends the live tokens that keep no data, access upon reference, whose
// volume has been deleted. It is called after volumes or files were deleted; their
// ends are durable after a Flush. Copies with these tokens finish or end, as the
// policy says.
func (m *Manager) EndOrphans(ctx context.Context) error {
	var errs []error
	for _, e := range m.referring() {
		_, err := m.store.Space([16]byte(e.rec.Volume)) // constant since the entry was made
		if !errors.Is(err, backstore.ErrNotFound) {
			continue
		}
		errs = append(errs, m.giveUp(ctx, e, DataGone))
	}
	return errors.Join(errs...)
}

// referring returns the live tokens whose data is a volume's.
func (m *Manager) referring() []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*entry
	for _, e := range m.live {
		if e.rec.Type.holding() == inVolume {
			list = append(list, e)
		}
	}
	return list
}

// bury makes the end of e one step of the store. e.record is held.
func (m *Manager) bury(ctx context.Context, e *entry, recs []backstore.Record) error {
	err := backstore.ErrNotFound
	if e.rec.Type.holding() == inSnapshot {
		err = m.store.DeleteSnapshot(ctx, e.rec.Snapshot, recs...)
		m.dropped.Store(time.Now().UnixNano())
	}
	if errors.Is(err, backstore.ErrNotFound) {
		err = m.store.PutRecords(ctx, recs...)
	}
	if e.deleted = err == nil; e.deleted && e.watch != nil {
		e.watch.Stop()
	}
	return err
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
			if err := m.kill(ctx, e, Expired, 0); err != nil && ctx.Err() == nil {
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
