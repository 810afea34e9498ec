package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A token holds the extents that only the snapshots of tokens refer to. While its data
// is not overwritten, a token holds nothing, whatever its length. Several tokens can
// hold an extent together; it is freed when the last of them ends.

// Relieve cancels tokens in the order of their ranks until they held at least need
// bytes that nothing else refers to. It returns the bytes that they held: 0 when no
// token can be cancelled, or when the policy is Keep.
func (m *Manager) Relieve(ctx context.Context, need int64) (int64, error) {
	if m.policy().Pressure == Keep {
		return 0, nil
	}
	return m.cancelHeld(ctx, need, OutOfSpace)
}

// cancelHeld cancels tokens that hold at least need bytes together.
func (m *Manager) cancelHeld(ctx context.Context, need int64, cause Cause) (int64, error) {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	if err != nil {
		return 0, err
	}
	return m.cancelMeasured(ctx, h, need, cause)
}

// cancelMeasured is cancelHeld for tokens that were measured. m.measuring is held.
func (m *Manager) cancelMeasured(ctx context.Context, h held, need int64, cause Cause) (int64, error) {
	going, freed, err := m.chooseHeld(ctx, h, need)
	if err != nil {
		return 0, err
	}
	for _, e := range going {
		if err := m.cancel(ctx, e, cause); err != nil {
			return 0, err
		}
	}
	m.noteHeld(h.total - freed)
	return freed, nil
}

// chooseHeld returns the first eviction candidates that hold need bytes together, and
// how much they hold: all candidates if that is less. An extent held by several is
// freed only when all of them end, so the store measures them together, before any of
// them ends: the store's counts lag behind deletions.
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

// snapshotsOf returns the identifiers of the entries' snapshots.
func snapshotsOf(entries []*entry) []uint64 {
	ids := make([]uint64, len(entries))
	for i, e := range entries {
		ids[i] = e.rec.Snapshot // constant since the entry was made
	}
	return ids
}

// makeRoom is Relieve for a write that does not fit into the store. It reports whether the write may be retried. It reports whether
// the write may be retried.
func (m *Manager) makeRoom(ctx context.Context, need int64) bool {
	given, err := m.Relieve(ctx, need)
	if err != nil && ctx.Err() == nil {
		m.log.WithError(err).Warn("no tokens cancelled for a write that does not fit")
	}
	return given > 0
}

// idleNow reports whether a token is an eviction candidate.
func (m *Manager) idleNow(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.candidateIndex >= 0
}

// held is what live tokens keep alive.
type held struct {
	total   int64
	byToken []heldBy // in the order of their ranks
}

type heldBy struct {
	rank  rank
	entry *entry
	bytes int64
}

// measure measures what each live token holds, and all of them together. m.measuring is
// held.
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
		if a.rank.before(b.rank) {
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

// noteHeld sets Stats.HeldBytes.
func (m *Manager) noteHeld(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.HeldBytes = bytes
}

// HeldBytes measures how many bytes live tokens keep alive that nothing else refers to.
func (m *Manager) HeldBytes(ctx context.Context) (int64, error) {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	h, err := m.measure(ctx)
	return h.total, err
}

// releaseTime is how long the store may take to count what the deletion of a snapshot
// leaves to other tokens.
const releaseTime = time.Second

// limitHeld enforces the limit on held bytes until ctx ends. A measurement soon after a
// token ended is repeated, because it may come too early.
func (m *Manager) limitHeld(ctx context.Context) {
	timer := time.NewTimer(m.limits().MeasurePeriod)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		looked := time.Now()
		if m.limits().HeldBytes == 0 {
			timer.Reset(m.limits().MeasurePeriod)
			continue
		}
		if err := m.enforceHeld(ctx); err != nil && ctx.Err() == nil {
			m.log.WithError(err).Warn("limit on held bytes not enforced; retrying")
		}
		next := m.limits().MeasurePeriod
		if time.Unix(0, m.dropped.Load()).Add(releaseTime).After(looked) {
			next = min(next, releaseTime)
		}
		timer.Reset(next)
	}
}

// enforceHeld cancels tokens until they hold no more than the limit.
func (m *Manager) enforceHeld(ctx context.Context) error {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	limit := m.limits().HeldBytes
	h, err := m.measure(ctx)
	if err != nil || h.total <= limit {
		return err
	}
	_, err = m.cancelMeasured(ctx, h, h.total-limit, HoldsTooMuch)
	return err
}
