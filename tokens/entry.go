package tokens

import (
	"container/heap"
	"context"
	"crypto/subtle"
	"sync"
	"time"

	"odx/offload"
)

// entry is a live token in memory.
type entry struct {
	id ID
	// watch ends the token before its data changes; nil unless it is change vulnerable.
	watch offload.Watch

	// located and digest are those of a hash token; nil otherwise. Such an entry exists
	// for one use and has no record.
	located *locator
	digest  [32]byte

	// record serializes changes of the token's record in the store: after its deletion,
	// no saveUse may store it again.
	record  sync.Mutex
	deleted bool      // guarded by record
	saved   time.Time // last LastUsed in the store; guarded by record

	// Guarded by Manager.mu.
	rec            record
	users          int       // operations that use it
	ended          Reason    // why it ended, 0 while it lives; new users are refused
	deadline       time.Time // when it expires; has a monotonic reading; meaningless while users > 0
	deadlineIndex  int       // place in Manager.idle, -1 when not there
	candidateIndex int       // place in Manager.candidates, -1 when not there
	// hinted: a user has deleted it where a deletion is a hint only (DeletionHint).
	hinted bool
	// aborts ends the contexts of its users, where the policy is AbortCopy.
	aborts map[*use]context.CancelCauseFunc
}

func newEntry(id ID, rec record) *entry {
	return &entry{id: id, rec: rec, saved: rec.LastUsed, deadlineIndex: -1, candidateIndex: -1}
}

// owns reports whether t holds the entry's secret.
func (e *entry) owns(t *Token) bool {
	return subtle.ConstantTimeCompare(e.rec.Name, t.name()) == 1
}

func (e *entry) info() Info {
	i := Info{
		ID: e.id, Type: e.rec.Type, Length: e.rec.Length, BlockLength: e.rec.BlockLength,
		Creator: e.rec.Creator, Created: e.rec.Created, LastUsed: e.rec.LastUsed,
		Inactivity: e.rec.Inactivity, Uses: e.rec.Uses, InUse: e.users, Priority: e.rec.Priority,
		Access: e.rec.Access,
	}
	copy(i.Management[:], e.rec.Management)
	if e.deadlineIndex >= 0 || e.located != nil {
		i.Expires = e.deadline
	}
	return i
}

// expiryHeap is the heap of idle tokens with a deadline, the next to expire first.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].deadlineIndex, h[j].deadlineIndex = i, j
}

// Push implements heap.Interface.
func (h *expiryHeap) Push(x any) {
	e := x.(*entry)
	e.deadlineIndex = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.deadlineIndex = -1
	return e
}

// setIdle makes an unused token an eviction candidate and starts its inactivity
// timeout, if it has one. m.mu is held.
func (m *Manager) setIdle(e *entry, deadline time.Time) {
	heap.Push(&m.candidates, e)
	if e.hinted {
		deadline = time.Now().Add(m.limits().MinInactivity)
	} else if !e.rec.Type.expires() {
		return
	}
	e.deadline = deadline
	heap.Push(&m.idle, e)
	if e.deadlineIndex == 0 {
		select {
		case m.wake <- struct{}{}:
		default: // a wake-up is pending
		}
	}
}

// setBusy undoes setIdle. m.mu is held.
func (m *Manager) setBusy(e *entry) {
	if e.candidateIndex >= 0 {
		heap.Remove(&m.candidates, e.candidateIndex)
	}
	if e.deadlineIndex >= 0 {
		heap.Remove(&m.idle, e.deadlineIndex)
	}
}
