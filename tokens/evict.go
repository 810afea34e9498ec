package tokens

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// rank is the order in which tokens are cancelled when a limit is reached. Tokens in
// use are not candidates; of the others, the first is the one that
//
//  1. a user has deleted as a hint,
//  2. has the lowest priority,
//  3. is not persistent,
//  4. was not used for the longest time, where each doubling of its number of
//     uses makes its last use count as useBonus later,
//  5. has the lowest identifier.
type rank struct {
	hinted   bool
	priority int
	expires  bool
	lastUse  time.Time
	id       ID
}

// rank returns the rank of e. Manager.mu is held.
func (e *entry) rank() rank {
	bonus := time.Duration(bits.Len64(e.rec.Uses)) * useBonus
	return rank{e.hinted, e.rec.Priority, e.rec.Type.expires(), e.rec.LastUsed.Add(bonus), e.id}
}

func (r rank) before(o rank) bool {
	switch {
	case r.hinted != o.hinted:
		return r.hinted
	case r.priority != o.priority:
		return r.priority < o.priority
	case r.expires != o.expires:
		return r.expires
	case !r.lastUse.Equal(o.lastUse):
		return r.lastUse.Before(o.lastUse)
	}
	return r.id < o.id
}

// useBonus is how much longer a token is kept for each doubling of its uses.
const useBonus = 5 * time.Second

// evictionHeap is the heap of eviction candidates, which are the idle tokens, in the
// order of their ranks. The order of two tokens does not change while both are in it.
type evictionHeap []*entry

func (h evictionHeap) Len() int           { return len(h) }
func (h evictionHeap) Less(i, j int) bool { return h[i].rank().before(h[j].rank()) }
func (h evictionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].candidateIndex, h[j].candidateIndex = i, j
}

// Push implements heap.Interface.
func (h *evictionHeap) Push(x any) {
	e := x.(*entry)
	e.candidateIndex = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *evictionHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.candidateIndex = -1
	return e
}

// entryBytes is the memory of a live token without its strings: the entry, its places
// in the map and the heaps, and the fields of its record. BenchmarkTokensMemory
// measures it.
const entryBytes = 560

// memory returns about how many bytes of memory a live token takes.
func (r *record) memory() int64 {
	c := &r.Creator
	return entryBytes + int64(len(c.Initiator)+len(c.Target)+len(c.Volume)+len(r.Access)+16*len(r.Ranges))
}

// reserve counts a new token with this record against the limits, and cancels others
// for it where the policy allows that. The caller calls release when the token is live,
// or was not made.
func (m *Manager) reserve(ctx context.Context, rec *record) (release func(), err error) {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, ErrClosed
		}
		cause, full := m.full(rec)
		if full == nil {
			m.claim(rec, 1)
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.claim(rec, -1)
			}, nil
		}
		var candidate *entry
		if cause != 0 && m.policy().WhenFull == EvictOthers && len(m.candidates) > 0 {
			if candidate = m.candidates[0]; !candidate.hinted && candidate.rec.Priority > rec.Priority {
				candidate = nil
			}
		}
		m.mu.Unlock()
		if candidate == nil {
			return nil, full
		}
		if err := m.cancel(ctx, candidate, cause); err != nil {
			return nil, fmt.Errorf("%w: %w", full, err)
		}
	}
}

// full returns which limit one more token would exceed, nil if none. cause, if not 0,
// is the cause for which another token would be cancelled. m.mu is held.
func (m *Manager) full(rec *record) (cause Cause, err error) {
	l := m.limits()
	if own := m.owned[rec.Creator.Initiator]; l.TokensPerInitiator > 0 && rec.Creator.Initiator != "" && own >= l.TokensPerInitiator {
		return 0, fmt.Errorf("%w: initiator %s has %d, its limit", ErrNoResources, rec.Creator.Initiator, own)
	}
	if n := len(m.live) + m.reserved; n >= l.Tokens {
		return TooManyTokens, fmt.Errorf("%w: the limit is %d", ErrNoResources, l.Tokens)
	}
	if used := m.memory + rec.memory(); used > l.MemoryBytes {
		return TooMuchMemory, fmt.Errorf("%w: they take %d bytes of memory, the limit is %d", ErrNoResources, m.memory, l.MemoryBytes)
	}
	return 0, nil
}

// claim counts n more tokens that are being made. m.mu is held.
func (m *Manager) claim(rec *record, n int) {
	m.reserved += n
	m.tally(rec, n)
}

// tally counts n more tokens, live or being made. m.mu is held.
func (m *Manager) tally(rec *record, n int) {
	m.memory += int64(n) * rec.memory()
	if who := rec.Creator.Initiator; who != "" {
		if m.owned[who] += n; m.owned[who] == 0 {
			delete(m.owned, who)
		}
	}
}

// cancel ends a token for cause. It is no error if the token has ended already.
func (m *Manager) cancel(ctx context.Context, e *entry, cause Cause) error {
	err := m.end(ctx, e, Cancelled, cause)
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// hintDeletion marks a token as one that its user needs no more.
func (m *Manager) hintDeletion(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.ended != 0 || e.hinted {
		return
	}
	idle := e.candidateIndex >= 0
	m.setBusy(e)
	e.hinted = true
	if idle {
		m.setIdle(e, time.Time{})
	}
}
