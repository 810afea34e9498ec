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
	held, err := m.measure(ctx)
	if err != nil {
		return 0, err
	}
	var given int64
	for _, h := range held.byToken {
		if given >= need {
			break
		}
		if h.bytes == 0 || !m.idleNow(h.entry) {
			continue
		}
		if err := m.giveUp(ctx, h.entry, cause); err != nil {
			return given, err
		}
		given += h.bytes
	}
	return given, nil
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
	ids := make([]uint64, len(h.byToken))
	for i := range ids {
		ids[i] = h.byToken[i].entry.rec.Snapshot // constant since the entry was made
	}
	measured, err := m.store.HeldBytes(ctx, ids)
	if err != nil {
		return h, fmt.Errorf("measure what tokens hold: %w", err)
	}
	h.total = measured.Total
	for i := range h.byToken {
		h.byToken[i].bytes = measured.Each[i]
	}
	m.mu.Lock()
	m.stats.HeldBytes = h.total
	m.mu.Unlock()
	return h, nil
}

// HeldBytes measures how many bytes live tokens keep alive that no volume, and
// nothing else, refers to any more.
func (m *Manager) HeldBytes(ctx context.Context) (int64, error) {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	return h.total, err
}

// limitHeld keeps tokens from holding more than the limit until ctx ends.
func (m *Manager) limitHeld(ctx context.Context) {
	tick := time.NewTicker(m.limits.MeasurePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.enforceHeld(ctx); err != nil && ctx.Err() == nil {
			m.log.WithError(err).Warn("the limit on what tokens hold is not kept for now")
		}
	}
}

// enforceHeld gives up tokens until they hold no more than the limit. What
// several hold together counts for each of them, so it looks again.
func (m *Manager) enforceHeld(ctx context.Context) error {
	for m.Stats().PinnedBytes > 0 {
		total, err := m.HeldBytes(ctx)
		if err != nil || total <= m.limits.HeldBytes {
			return err
		}
		given, err := m.giveUpHeld(ctx, total-m.limits.HeldBytes, HoldsTooMuch)
		if err != nil || given == 0 {
			return err
		}
	}
	return nil
}
