package scsi

// maxLostNexuses bounds the ended nexuses that a target remembers. A forgotten one gets
// POWER ON when it returns, which covers the loss.
const maxLostNexuses = 1024

// lostNexuses are the most recent nexuses that ended since the start and have not
// returned. They get I_T NEXUS LOSS OCCURRED (SAM-5 6.3.4).
type lostNexuses struct {
	known map[NexusID]struct{}
	ring  []NexusID // in the order in which they ended
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

// take reports whether a nexus was lost, and removes it.
func (l *lostNexuses) take(id NexusID) bool {
	_, lost := l.known[id]
	delete(l.known, id)
	return lost
}
