package snapshots

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/backstore"
)

// ledger are the records of a store, in memory.
type ledger struct {
	store *backstore.Store
	log   *logrus.Entry

	// writing is held while a state is changed and its record put: both have one order. It is
	// outside of mu.
	writing sync.Mutex

	mu     sync.Mutex // guards the rest
	taken  map[identity]taken
	states map[string]state
}

// openLedger reads the records. Those that are damaged are left alone, and logged: their
// snapshots belong to no policy then, and stay.
func openLedger(store *backstore.Store, log *logrus.Entry) (*ledger, error) {
	l := &ledger{store: store, log: log, taken: map[identity]taken{}, states: map[string]state{}}
	err := store.ScanRecords([]byte(takenPrefix), func(key, value []byte) error {
		t, ok, err := readTaken(key, value)
		if err != nil {
			log.WithError(err).Warn("a snapshot belongs to no policy any more, and stays")
		} else if ok {
			l.taken[t.ID] = t
		}
		return nil
	})
	if err = l.tolerate(err); err != nil {
		return nil, err
	}
	err = store.ScanRecords([]byte(policyPrefix), func(key, value []byte) error {
		policy, s, ok, err := readState(key, value)
		if err != nil {
			log.WithError(err).Warn("what a policy of snapshots did last is not known")
		} else if ok {
			l.states[policy] = s
		}
		return nil
	})
	return l, l.tolerate(err)
}

// tolerate logs records that are lost.
func (l *ledger) tolerate(err error) error {
	var lost *backstore.LostRecordsError
	if !errors.As(err, &lost) {
		return err
	}
	l.log.WithError(err).Warn("records of snapshots are lost: those snapshots belong to no policy any more, and stay")
	return nil
}

// objects returns all volumes and files of the store by their identities.
func (l *ledger) objects() map[identity]*backstore.Volume {
	all := map[identity]*backstore.Volume{}
	for _, v := range append(l.store.Volumes(), l.store.Files()...) {
		all[v.ID()] = v
	}
	return all
}

// of returns the snapshots of a policy, of all for "".
func (l *ledger) of(policy string) (list []taken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.taken {
		if policy == "" || t.Policy == policy {
			list = append(list, t)
		}
	}
	return list
}

// count returns how many snapshots there are of a policy, and of all.
func (l *ledger) count(policy string) (own, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.taken {
		if t.Policy == policy {
			own++
		}
	}
	return own, len(l.taken)
}

// lastRun returns the number of the last run of which a policy has a snapshot: the record of
// the policy can be lost.
func (l *ledger) lastRun(policy string) (last uint64) {
	for _, t := range l.of(policy) {
		last = max(last, t.Run)
	}
	return last
}

// state returns what is known of a policy; ok is false for nothing.
func (l *ledger) state(policy string) (state, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.states[policy]
	return s, ok
}

// policies returns the names of the policies that have a record.
func (l *ledger) policies() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.states))
}

// setState sets what is known of a policy, and stores it durably. After an error it is known as
// long as the process lives.
func (l *ledger) setState(ctx context.Context, policy string, s state) error {
	return l.changeState(ctx, policy, func(now *state) { *now = s })
}

// changeState is setState of what change makes of what is known.
func (l *ledger) changeState(ctx context.Context, policy string, change func(s *state)) error {
	if err := l.putState(ctx, policy, change); err != nil {
		return fmt.Errorf("record of the policy %s: %w", policy, err)
	}
	if err := l.store.Flush(ctx); err != nil {
		return fmt.Errorf("record of the policy %s: %w", policy, err)
	}
	return nil
}

func (l *ledger) putState(ctx context.Context, policy string, change func(s *state)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	s := l.states[policy]
	change(&s)
	l.states[policy] = s
	l.mu.Unlock()
	return l.store.PutRecords(ctx, s.record(policy))
}

// request is a snapshot that is to be taken.
type request struct {
	of    *backstore.Volume
	name  string
	taken taken
}

// take takes snapshots at one point in time, with their records, durably.
func (l *ledger) take(ctx context.Context, all []request) error {
	var list []backstore.NewSnapshot
	var recs []backstore.Record
	for i := range all {
		r := &all[i]
		list = append(list, backstore.NewSnapshot{Of: r.of, Name: r.name, ID: r.taken.ID})
		recs = append(recs, r.taken.record())
	}
	made, err := l.store.SnapshotAll(ctx, list, recs...)
	if made == nil && err != nil {
		return err
	}
	// After an error of the flush they are there, and may not be after a crash.
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range all {
		l.taken[all[i].taken.ID] = all[i].taken
	}
	return err
}

// forget deletes the records of snapshots that do not exist any more.
func (l *ledger) forget(ctx context.Context, gone []taken) error {
	if len(gone) == 0 {
		return nil
	}
	var recs []backstore.Record
	for i := range gone {
		recs = append(recs, backstore.Record{Key: gone[i].key()})
	}
	if err := l.store.PutRecords(ctx, recs...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range gone {
		delete(l.taken, t.ID)
	}
	return nil
}
