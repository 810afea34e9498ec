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
	// watch tells of a change of the token's data; nil unless it is change
	// vulnerable.
	watch offload.Watch

	// located and digest are those of a hash token; nil otherwise. Such an entry
	// lives as long as one use and has no record.
	located *locator
	digest  [32]byte

	// record orders changes of the token's record in the store: once the
	// record was deleted, no late saveUse may bring it back.
	record  sync.Mutex
	deleted bool      // guarded by record
	saved   time.Time // last LastUsed in the store; guarded by record

	// Guarded by Manager.mu.
	rec      record
	users    int       // operations running
	dying    Reason    // set once it ends; new users are refused
	deadline time.Time // when it expires; has a monotonic reading; meaningless while users > 0
	index    int       // place in Manager.idle, -1 when not there
	victim   int       // place in Manager.victims, -1 when not there
	// surrendered: a user said that nobody needs it any more.
	surrendered bool
	// aborts ends the contexts of those who use it, where policy asks for that.
	aborts map[*use]context.CancelCauseFunc
}

func newEntry(id ID, rec record) *entry {
	return &entry{id: id, rec: rec, saved: rec.LastUsed, index: -1, victim: -1}
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
	if e.index >= 0 || e.located != nil {
		i.Expires = e.deadline
	}
	return i
}

// deadlines is the heap of tokens that nobody uses, the next to expire first.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.index = len(*d)
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	e.index = -1
	return e
}

// rest puts a token that nobody uses among those that can be given up, and under
// its inactivity timeout, if it has one. m.mu is held.
func (m *Manager) rest(e *entry, deadline time.Time) {
	heap.Push(&m.victims, e)
	if e.surrendered {
		deadline = time.Now().Add(m.limits.MinInactivity)
	} else if !e.rec.Type.expires() {
		return
	}
	e.deadline = deadline
	heap.Push(&m.idle, e)
	if e.index == 0 {
		select {
		case m.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// unrest undoes rest. m.mu is held.
func (m *Manager) unrest(e *entry) {
	if e.victim >= 0 {
		heap.Remove(&m.victims, e.victim)
	}
	if e.index >= 0 {
		heap.Remove(&m.idle, e.index)
	}
}
