package scsi

// maxLostNexuses bounds how many nexuses a target remembers after their end.
// Who is forgotten is told POWER ON when it comes back, which says more than it
// has to.
const maxLostNexuses = 1024

// lostNexuses are the last nexuses that ended since the start, and have not come
// back: they are to be told I_T NEXUS LOSS OCCURRED (SAM-5 6.3.4).
type lostNexuses struct {
	known map[NexusID]struct{}
	ring  []NexusID // in the order of their ends
	next  int
}

func (l *lostNexuses) add(id NexusID) {
	if l.known == nil {
		l.known, l.ring = make(map[NexusID]struct{}), make([]NexusID, maxLostNexuses)
	}
	if _, again := l.known[id]; again {
		return
	}
	delete(l.known, l.ring[l.next])
	l.ring[l.next] = id
	l.next = (l.next + 1) % maxLostNexuses
	l.known[id] = struct{}{}
}

// take reports whether a nexus was lost, and forgets it.
func (l *lostNexuses) take(id NexusID) bool {
	_, lost := l.known[id]
	delete(l.known, id)
	return lost
}
