package tokens

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"odx/backstore"
)

// loadTokens reads the live tokens of the store. A malformed or damaged record is logged
// and left alone: one bad token must not keep a store from serving. Nor is anything freed
// that such a token may hold.
func (m *Manager) loadTokens(ctx context.Context) error {
	var found []loadedToken
	err := m.store.ScanRecords([]byte(livePrefix), func(key, value []byte) error {
		id, err := keyID(livePrefix, key)
		if err != nil {
			m.log.WithError(err).Error("token record unreadable, left alone")
			return ctx.Err()
		}
		found = append(found, loadedToken{id: id, value: value})
		return ctx.Err()
	})
	decodeAll(found)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range found {
		t := &found[i]
		if t.err != nil {
			m.log.WithError(t.err).WithField("token", t.id).Error("token record unreadable, left alone")
			continue
		}
		e := newEntry(t.id, *t.rec)
		m.live[t.id] = e
		m.tally(t.rec, 1)
		m.stats.PinnedBytes += t.rec.pinned()
		m.setIdle(e, remaining(t.rec, time.Now()))
	}
	var lost *backstore.LostRecordsError
	if !errors.As(err, &lost) {
		return err
	}
	for _, key := range lost.Keys {
		if id, err := keyID(livePrefix, key); err == nil {
			m.lost[id] = struct{}{}
		}
	}
	m.log.WithError(err).WithField("tokens", len(lost.Keys)).
		Error("records of tokens are lost: these tokens are refused, and what they hold stays in the store")
	return nil
}

// loadedToken is the record of a token while it is loaded.
type loadedToken struct {
	id    ID
	value []byte
	rec   *record
	err   error
}

// decodeAll decodes records on all processors: a server with 100,000 tokens starts, and
// takes over, as fast as their records are decoded.
func decodeAll(tokens []loadedToken) {
	var all sync.WaitGroup
	for part := range slices.Chunk(tokens, max(len(tokens)/runtime.GOMAXPROCS(0), 256)) {
		all.Go(func() {
			for i := range part {
				part[i].rec, part[i].err = decodeRecord(part[i].value)
			}
		})
	}
	all.Wait()
}

// Count returns how many live tokens a store has, and the bytes that they stand
// for, as its readable records say. It changes nothing.
func Count(s Store) (live int, pinned int64, err error) {
	err = s.ScanRecords([]byte(livePrefix), func(_, value []byte) error {
		if rec, err := decodeRecord(value); err == nil {
			live++
			pinned += rec.pinned()
		}
		return nil
	})
	if _, lost := errors.AsType[*backstore.LostRecordsError](err); lost {
		err = nil
	}
	return live, pinned, err
}

// remaining returns when a token that was idle while the manager was closed expires, by
// the wall clock. If the clock was set back, the token gets no more than its timeout.
func remaining(rec *record, now time.Time) time.Time {
	idle := max(now.Sub(rec.LastUsed), 0)
	return now.Add(max(rec.Inactivity-idle, 0))
}

// loadTombstones reads the tombstones of the tokens that ended last, and deletes those
// above the limit.
func (m *Manager) loadTombstones(ctx context.Context) error {
	type stored struct {
		id ID
		tombstone
	}
	var found []stored
	var drop []backstore.Record
	err := m.store.ScanRecords([]byte(tombstonePrefix), func(key, value []byte) error {
		id, err := keyID(tombstonePrefix, key)
		if err == nil {
			var t tombstone
			if t, err = decodeTombstone(value); err == nil {
				found = append(found, stored{id, t})
				return ctx.Err()
			}
		}
		if errors.Is(err, errNewer) {
			m.log.WithError(err).Warn("tombstone unreadable, left alone")
			return ctx.Err()
		}
		m.log.WithError(err).Warn("tombstone unreadable, deleted")
		drop = append(drop, backstore.Record{Key: append([]byte(nil), key...)})
		return ctx.Err()
	})
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		m.log.WithError(err).Warn("tombstones are lost, and deleted: these tokens are unknown")
		for _, key := range lost.Keys {
			drop = append(drop, backstore.Record{Key: key})
		}
	} else if err != nil {
		return err
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Ended.Before(found[j].Ended) })
	m.mu.Lock()
	surplus := max(len(found)-m.ended.max, 0)
	for _, g := range found[:surplus] {
		drop = append(drop, deletion(tombstonePrefix, g.id))
	}
	for _, g := range found[surplus:] {
		m.ended.add(g.id, g.tombstone, nil)
	}
	m.mu.Unlock()
	if len(drop) == 0 {
		return nil
	}
	return m.store.PutRecords(ctx, drop...)
}
