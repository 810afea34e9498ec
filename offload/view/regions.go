package view

import "sync"

const (
	regionBytes = 1 << 20
	regionLocks = 64
)

// regions are locks of ranges of bytes. Ranges that overlap share a lock, others may.
// Locks are taken in the order of their index.
type regions [regionLocks]sync.RWMutex

// span is the set of locks of a range: count of them from first on, modulo regionLocks.
type span struct {
	of           *regions
	first, count int
}

func (r *regions) of(off, length int64) span {
	first, last := off/regionBytes, (off+max(length, 1)-1)/regionBytes
	return span{r, int(first % regionLocks), int(min(last-first+1, regionLocks))}
}

func (s span) has(i int) bool { return (i-s.first+regionLocks)%regionLocks < s.count }

func (s span) each(do func(*sync.RWMutex)) {
	for i := range s.of {
		if s.has(i) {
			do(&s.of[i])
		}
	}
}

func (s span) lock()    { s.each((*sync.RWMutex).Lock) }
func (s span) unlock()  { s.each((*sync.RWMutex).Unlock) }
func (s span) rlock()   { s.each((*sync.RWMutex).RLock) }
func (s span) runlock() { s.each((*sync.RWMutex).RUnlock) }
