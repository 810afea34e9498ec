package backstore

import (
	"sync"

	"odx/backstore/invariant"
	"odx/backstore/segment"
)

// appendFloors knows the writers that have put, or may put, data into segments
// without any reference to it existing yet. A segment that looks empty may be
// deleted only if it is older than all of them.
type appendFloors struct {
	mu     sync.Mutex
	counts map[segment.ID]int // writers by the oldest segment they may have appended to; guarded by mu
}

// begin registers a writer that appends to segment floor or later ones.
func (a *appendFloors) begin(floor segment.ID) {
	a.mu.Lock()
	if a.counts == nil {
		a.counts = make(map[segment.ID]int)
	}
	a.counts[floor]++
	a.mu.Unlock()
}

func (a *appendFloors) end(floor segment.ID) {
	a.mu.Lock()
	if invariant.Enabled && a.counts[floor] == 0 {
		invariant.Violated("a writer ended twice at segment %08x", floor)
	}
	if a.counts[floor]--; a.counts[floor] == 0 {
		delete(a.counts, floor)
	}
	a.mu.Unlock()
}

// min returns the lowest floor of all writers, or limit if none is lower.
func (a *appendFloors) min(limit segment.ID) segment.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.counts {
		limit = min(limit, id)
	}
	return limit
}
