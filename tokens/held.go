package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// What a token holds: the extents that only the snapshots of tokens refer to.
// A token whose data nobody has overwritten holds nothing, however much it
// stands for. Tokens can hold an extent together; it is free when the last of
// them goes.

// Relieve gives up tokens, in the order in which they go, that hold at least
// need bytes that nothing else refers to, and returns how many bytes those that
// it gave up held: 0 when there are none, or when the policy is Keep.
func (m *Manager) Relieve(ctx context.Context, need int64) (int64, error) {
	if m.policy.Pressure == Keep {
		return 0, nil
	}
	return m.giveUpHeld(ctx, need, OutOfSpace)
}

// giveUpHeld gives up tokens that hold at least need bytes together.
func (m *Manager) giveUpHeld(ctx context.Context, need int64, cause Cause) (int64, error) {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	if err != nil {
		return 0, err
	}
	return m.giveUpOf(ctx, h, need, cause)
}

// giveUpOf gives up tokens of those measured. m.measuring is held.
func (m *Manager) giveUpOf(ctx context.Context, h held, need int64, cause Cause) (int64, error) {
	going, freed, err := m.chooseHeld(ctx, h, need)
	if err != nil {
		return 0, err
	}
	for _, e := range going {
		if err := m.giveUp(ctx, e, cause); err != nil {
			return 0, err
		}
	}
	m.noteHeld(h.total - freed)
	return freed, nil
}

// chooseHeld returns the first tokens to go that hold need bytes together, and how much
// they hold: all that can go if that is less. What several hold together is only
// free when all of them go, so what counts is what the store says of them together,
// before any of them goes: afterwards it takes the store a while to count.
func (m *Manager) chooseHeld(ctx context.Context, h held, need int64) ([]*entry, int64, error) {
	var going []*entry
	for _, b := range h.byToken {
		if b.bytes > 0 && m.idleNow(b.entry) {
			going = append(going, b.entry)
		}
	}
	freed := make(map[int]int64, 8) // by number of tokens
	hold := func(n int) (int64, error) {
		if bytes, ok := freed[n]; ok {
			return bytes, nil
		}
		measured, err := m.store.HeldBytes(ctx, snapshotsOf(going[:n]))
		if err != nil {
			return 0, fmt.Errorf("measure what tokens hold: %w", err)
		}
		freed[n] = measured.Total
		return measured.Total, nil
	}
	// few hold less than need; enough do not, or are all.
	few, enough := 0, min(1, len(going))
	for enough < len(going) {
		bytes, err := hold(enough)
		if err != nil {
			return nil, 0, err
		}
		if bytes >= need {
			break
		}
		few, enough = enough, min(2*enough, len(going))
	}
	for few+1 < enough {
		middle := (few + enough) / 2
		bytes, err := hold(middle)
		if err != nil {
			return nil, 0, err
		}
		if bytes >= need {
			enough = middle
		} else {
			few = middle
		}
	}
	bytes, err := hold(enough)
	return going[:enough], bytes, err
}

// snapshotsOf returns the snapshots of tokens that have one.
func snapshotsOf(entries []*entry) []uint64 {
	ids := make([]uint64, len(entries))
	for i, e := range entries {
		ids[i] = e.rec.Snapshot // constant since the entry was made
	}
	return ids
}

// makeRoom is Relieve for a write that does not fit into the store.
func (m *Manager) makeRoom(ctx context.Context, need int64) bool {
	given, err := m.Relieve(ctx, need)
	if err != nil && ctx.Err() == nil {
		m.log.WithError(err).Warn("tokens could not make room for a write")
	}
	return given > 0
}

// idleNow reports whether nobody uses a live token.
func (m *Manager) idleNow(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.victim >= 0
}

// held is what live tokens keep alive.
type held struct {
	total   int64
	byToken []heldBy // in the order in which tokens go
}

type heldBy struct {
	rank  rank
	entry *entry
	bytes int64
}

// measure asks the store what tokens hold. m.measuring is held.
func (m *Manager) measure(ctx context.Context) (held, error) {
	var h held
	m.mu.Lock()
	for _, e := range m.live {
		if e.rec.Type.holding() == inSnapshot {
			h.byToken = append(h.byToken, heldBy{rank: e.rank(), entry: e})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(h.byToken, func(a, b heldBy) int {
		if a.rank.goesBefore(b.rank) {
			return -1
		}
		return 1
	})
	entries := make([]*entry, len(h.byToken))
	for i := range entries {
		entries[i] = h.byToken[i].entry
	}
	ids := snapshotsOf(entries)
	measured, err := m.store.HeldBytes(ctx, ids)
	if err != nil {
		return h, fmt.Errorf("measure what tokens hold: %w", err)
	}
	h.total = measured.Total
	for i := range h.byToken {
		h.byToken[i].bytes = measured.Each[i]
	}
	m.noteHeld(h.total)
	return h, nil
}

// noteHeld is for Stats.
func (m *Manager) noteHeld(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.HeldBytes = bytes
}

// HeldBytes measures how many bytes live tokens keep alive that no volume, and
// nothing else, refers to any more.
func (m *Manager) HeldBytes(ctx context.Context) (int64, error) {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	return h.total, err
}

// reapTime is how long after a snapshot was given up what others hold together with
// it may not be measured yet.
const reapTime = time.Second

// limitHeld keeps tokens from holding more than the limit until ctx ends. A look
// soon after a token went is followed by another one.
func (m *Manager) limitHeld(ctx context.Context) {
	timer := time.NewTimer(m.limits.MeasurePeriod)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		looked := time.Now()
		if err := m.enforceHeld(ctx); err != nil && ctx.Err() == nil {
			m.log.WithError(err).Warn("the limit on what tokens hold is not kept for now")
		}
		next := m.limits.MeasurePeriod
		if time.Unix(0, m.dropped.Load()).Add(reapTime).After(looked) {
			next = min(next, reapTime)
		}
		timer.Reset(next)
	}
}

// enforceHeld gives up tokens until they hold no more than the limit.
func (m *Manager) enforceHeld(ctx context.Context) error {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	if err != nil || h.total <= m.limits.HeldBytes {
		return err
	}
	_, err = m.giveUpOf(ctx, h, h.total-m.limits.HeldBytes, HoldsTooMuch)
	return err
}
