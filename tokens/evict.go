package tokens

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// Which token goes first when some have to be given up. Tokens in use are
// spared; of the others goes the one that
//
//  1. a user has deleted as a hint,
//  2. has the lowest priority,
//  3. is not persistent,
//  4. was not used for the longest time, where each doubling of its number of
//     uses makes its last use count as useBonus later,
//  5. has the lowest identifier.
type rank struct {
	surrendered bool
	priority    int
	expires     bool
	lastUse     time.Time
	id          ID
}

// rank returns where e stands in that order. Manager.mu is held.
func (e *entry) rank() rank {
	bonus := time.Duration(bits.Len64(e.rec.Uses)) * useBonus
	return rank{e.surrendered, e.rec.Priority, e.rec.Type.expires(), e.rec.LastUsed.Add(bonus), e.id}
}

func (r rank) goesBefore(o rank) bool {
	switch {
	case r.surrendered != o.surrendered:
		return r.surrendered
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

// victims is the heap of tokens that nobody uses, the first to go first. The
// order of two tokens does not change while both are in it.
type victims []*entry

func (v victims) Len() int           { return len(v) }
func (v victims) Less(i, j int) bool { return v[i].rank().goesBefore(v[j].rank()) }
func (v victims) Swap(i, j int) {
	v[i], v[j] = v[j], v[i]
	v[i].victim, v[j].victim = i, j
}

// Push implements heap.Interface.
func (v *victims) Push(x any) {
	e := x.(*entry)
	e.victim = len(*v)
	*v = append(*v, e)
}

// Pop implements heap.Interface.
func (v *victims) Pop() any {
	last := len(*v) - 1
	e := (*v)[last]
	(*v)[last] = nil
	*v = (*v)[:last]
	e.victim = -1
	return e
}

// entryBytes is what a live token takes in memory besides its strings: the entry,
// its places in the map and the heaps, and what its record holds.
// BenchmarkTokensMemory measures it.
const entryBytes = 560

// memory returns about how many bytes of memory a live token takes.
func (r *record) memory() int64 {
	c := &r.Creator
	return entryBytes + int64(len(c.Initiator)+len(c.Target)+len(c.Volume)+len(r.Access)+16*len(r.Ranges))
}

// reserve takes a place among the live tokens for one with this record, and
// gives up others for it where the policy allows that. release gives the place
// back, when the token is live or was not made.
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
		var victim *entry
		if cause != 0 && m.policy.WhenFull == EvictOthers && len(m.victims) > 0 {
			if victim = m.victims[0]; !victim.surrendered && victim.rec.Priority > rec.Priority {
				victim = nil
			}
		}
		m.mu.Unlock()
		if victim == nil {
			return nil, full
		}
		if err := m.giveUp(ctx, victim, cause); err != nil {
			return nil, fmt.Errorf("%w: %w", full, err)
		}
	}
}

// full returns which limit stands in the way of one more token, nil if none
// does. cause, if not 0, is why another token would be given up for it. m.mu is
// held.
func (m *Manager) full(rec *record) (cause Cause, err error) {
	l := &m.limits
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

// giveUp ends a token for the good of others. One that ended meanwhile is fine.
func (m *Manager) giveUp(ctx context.Context, e *entry, cause Cause) error {
	err := m.kill(ctx, e, Cancelled, cause)
	if errors.Is(err, errDying) {
		return nil
	}
	return err
}

// surrender marks a token as one that its user needs no more.
func (m *Manager) surrender(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.dying != 0 || e.surrendered {
		return
	}
	idle := e.victim >= 0
	m.unrest(e)
	e.surrendered = true
	if idle {
		m.rest(e, time.Time{})
	}
}
