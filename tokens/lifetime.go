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
	// saveUseEvery bounds how often the use of a busy token is stored, and so how much
	// of it a crash loses.
	saveUseEvery = time.Second
	// retryEnd is the pause before a token's end is stored again when the
	// store refused it.
	retryEnd = 10 * time.Second
)

// use is one operation that uses a token.
type use struct {
	entry    *entry // nil: of another server
	snapshot offload.Snapshot
	// ctx ends when the operation's does, and with the token's error when the
	// token ends, where policy asks for that.
	ctx   context.Context
	close context.CancelCauseFunc
}

// err returns the cause of an error of the operation's context: the token's error if
// the token ended, the caller's otherwise.
func (u *use) err(err error) error {
	if err == nil || u.ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(u.ctx); cause != nil {
		return cause
	}
	return err
}

// useContext is the context of a use of a token. Its Err includes that of the caller at
// once; a derived context sees it a little later.
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

// acquire marks the token of e as in use and opens its data, if the requester may use
// it. It does not expire before release.
func (m *Manager) acquire(ctx context.Context, e *entry, who Requester) (*use, error) {
	u := &use{entry: e, ctx: ctx, close: func(error) {}}
	if m.policy().RunningCopy == AbortCopy {
		var derived context.Context
		derived, u.close = context.WithCancelCause(ctx)
		u.ctx = useContext{derived, ctx}
	}
	if err := m.addUse(u, who); err != nil {
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
	m.removeUse(u, u.entry.deadline)
	ended := m.usable(u.entry)
	m.mu.Unlock()
	switch {
	case ended != nil:
		return nil, ended // after it was found
	case errors.Is(err, backstore.ErrNotFound), errors.Is(err, blockdev.ErrRange):
		// Not %w: errors.Is has to match the token's error alone.
		lost := fmt.Errorf("%w: %v: %v", ErrCancelled, DataGone, err)
		if err := m.cancel(ctx, u.entry, DataGone); err != nil {
			return nil, errors.Join(lost, err)
		}
		return nil, lost
	}
	return nil, err
}

// addUse adds u to the uses of its token, if the requester may use it.
func (m *Manager) addUse(u *use, who Requester) error {
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
	m.setBusy(e)
	if m.policy().RunningCopy == AbortCopy {
		if e.aborts == nil {
			e.aborts = make(map[*use]context.CancelCauseFunc)
		}
		e.aborts[u] = u.close
	}
	return nil
}

// release ends a use, which restarts the inactivity timeout.
func (m *Manager) release(ctx context.Context, u *use) {
	u.snapshot.Release()
	u.close(nil)
	e, now := u.entry, time.Now()
	if e == nil {
		return // of another server
	}
	m.mu.Lock()
	e.rec.Uses++
	m.stats.Uses++
	e.rec.LastUsed = now.UTC()
	m.removeUse(u, now.Add(e.rec.Inactivity))
	m.mu.Unlock()
	if e.located != nil {
		return
	}
	if err := m.saveUse(ctx, e, saveUseEvery); err != nil && ctx.Err() == nil {
		m.log.WithError(err).WithField("token", e.id).Warn("last use of a token not stored")
	}
}

// removeUse ends a use of a token; after the last one it is idle until deadline. m.mu
// is held.
func (m *Manager) removeUse(u *use, deadline time.Time) {
	e := u.entry
	if e.located != nil {
		return
	}
	delete(e.aborts, u)
	e.users--
	if e.users == 0 && e.ended == 0 {
		m.setIdle(e, deadline)
	}
}

// saveUse stores when and how often e was used, unless the stored time is not older
// than every.
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
		return nil // a later use, or Close, stores it
	}
	if err := m.store.PutRecords(ctx, backstore.Record{Key: tokenKey(livePrefix, e.id), Value: rec.encode()}); err != nil {
		return err
	}
	e.saved = rec.LastUsed
	return nil
}

// errEnded: another caller ended the token first.
var errEnded = errors.New("token has ended already")

// end ends a live token: new uses are refused with the reason's error, and the store
// unpins the snapshot (readers finish). The first of several callers decides; the
// others wait until its records are stored. The end is durable after a Flush.
//
// cause is why the manager cancels it, 0 if a user or an administrator ends it.
func (m *Manager) end(ctx context.Context, e *entry, reason Reason, cause Cause) error {
	e.record.Lock()
	defer e.record.Unlock()
	m.mu.Lock()
	if e.hinted && reason != Revoked {
		reason = Deleted // its user has deleted it
	}
	ts := tombstone{Reason: reason, Cause: cause, Ended: time.Now().UTC()}
	if e.ended != 0 {
		m.mu.Unlock()
		return fmt.Errorf("%w: %w", errEnded, e.ended.err())
	}
	e.ended = reason
	m.setBusy(e)
	forgotten := m.ended.surplus()
	m.mu.Unlock()

	recs := []backstore.Record{deletion(livePrefix, e.id), {Key: tokenKey(tombstonePrefix, e.id), Value: ts.encode()}}
	for _, id := range forgotten {
		recs = append(recs, deletion(tombstonePrefix, id))
	}
	err := m.storeEnd(ctx, e, recs)

	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		// The token stays live, so that its snapshot is deleted later.
		e.ended = 0
		if e.users == 0 && m.live[e.id] == e {
			m.setIdle(e, time.Now().Add(retryEnd))
		}
		return fmt.Errorf("end token %v (%v): %w", e.id, reason, err)
	}
	if m.live[e.id] == e {
		delete(m.live, e.id)
		m.tally(&e.rec, -1)
		m.stats.PinnedBytes -= e.rec.pinned()
	}
	m.ended.add(e.id, ts, forgotten)
	m.countEnd(e, ts)
	for _, abort := range e.aborts {
		abort(m.endError(e.id))
	}
	return nil
}

// endOnChange returns what a volume calls before the data of a change vulnerable token
// changes. It ends the token first, so that no crash keeps the change without the end.
func (m *Manager) endOnChange(e *entry) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.end(ctx, e, Cancelled, Overwritten); err != nil && !errors.Is(err, errEnded) {
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
		_, err := m.store.ObjectByID([16]byte(e.rec.Volume)) // constant since the entry was made
		if !errors.Is(err, backstore.ErrNotFound) {
			continue
		}
		errs = append(errs, m.cancel(ctx, e, DataGone))
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

// storeEnd makes the end of e one step of the store. e.record is held.
func (m *Manager) storeEnd(ctx context.Context, e *entry, recs []backstore.Record) error {
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
			if err := m.end(ctx, e, Expired, 0); err != nil && ctx.Err() == nil {
				m.log.WithError(err).Warn("expired token stays pinned until its end is stored")
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
