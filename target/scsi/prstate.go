package scsi

import "slices"

// reservationType is the TYPE field of a persistent reservation (SPC-4 r37
// 6.15.3.4); zero stands for none.
type reservationType byte

// Types of persistent reservations.
const (
	typeWriteExclusive                 reservationType = 1
	typeExclusiveAccess                reservationType = 3
	typeWriteExclusiveRegistrantsOnly  reservationType = 5
	typeExclusiveAccessRegistrantsOnly reservationType = 6
	typeWriteExclusiveAllRegistrants   reservationType = 7
	typeExclusiveAccessAllRegistrants  reservationType = 8
)

func (k reservationType) valid() bool {
	return k == typeWriteExclusive || k == typeExclusiveAccess || k.forRegistrants()
}

// forRegistrants: every registered nexus has access.
func (k reservationType) forRegistrants() bool {
	return k >= typeWriteExclusiveRegistrantsOnly && k <= typeExclusiveAccessAllRegistrants
}

// allRegistrants: every registered nexus is a holder.
func (k reservationType) allRegistrants() bool {
	return k == typeWriteExclusiveAllRegistrants || k == typeExclusiveAccessAllRegistrants
}

// outside is the standing of nexuses to which the reservation gives no access.
func (k reservationType) outside() standing {
	switch k {
	case 0:
		return unrestricted
	case typeWriteExclusive, typeWriteExclusiveRegistrantsOnly, typeWriteExclusiveAllRegistrants:
		return outsideWriteExclusive
	}
	return outsideExclusiveAccess
}

// registration is an I_T nexus with the reservation key it has registered. It
// outlives sessions: a nexus is its two ports.
type registration struct {
	nexus NexusID
	key   uint64
}

// persistentState is what PERSISTENT RESERVE OUT changes. A logical unit
// replaces it as a whole.
type persistentState struct {
	// generation is PRGENERATION, zero at power on.
	generation uint32
	// aptpl: the state is kept over a loss of power (PTPL_A).
	aptpl         bool
	registrations []registration // in the order in which they were made
	// kind is the persistent reservation's type, zero when there is none. Its
	// scope is always the logical unit.
	kind reservationType
	// holder is registered; it means nothing without a reservation, or where all
	// registrants hold it.
	holder NexusID
}

func (s *persistentState) find(id NexusID) int {
	return slices.IndexFunc(s.registrations, func(r registration) bool { return r.nexus == id })
}

// key returns the reservation key of a nexus, zero when it is not registered.
func (s *persistentState) key(id NexusID) uint64 {
	if i := s.find(id); i >= 0 {
		return s.registrations[i].key
	}
	return 0
}

func (s *persistentState) hasKey(key uint64) bool {
	return slices.ContainsFunc(s.registrations, func(r registration) bool { return r.key == key })
}

// isHolder reports whether a nexus is a persistent reservation holder.
func (s *persistentState) isHolder(id NexusID) bool {
	switch {
	case s.kind == 0:
		return false
	case s.kind.allRegistrants():
		return s.find(id) >= 0
	}
	return s.holder == id
}

// unrestricted reports whether the reservation that there is leaves a nexus every
// access.
func (s *persistentState) unrestricted(id NexusID) bool {
	return s.isHolder(id) || s.kind.forRegistrants() && s.find(id) >= 0
}

// reservation returns the state as commands look at it, nil when nothing is
// reserved.
func (s *persistentState) reservation() *reservation {
	if s.kind == 0 {
		return nil
	}
	r := &reservation{free: make(map[NexusID]struct{}), others: s.kind.outside()}
	for _, g := range s.registrations {
		if s.kind.forRegistrants() || s.isHolder(g.nexus) {
			r.free[g.nexus] = struct{}{}
		}
	}
	return r
}

// prChange is one PERSISTENT RESERVE OUT at work: the state as it will be, and
// what has to be done when it is.
type prChange struct {
	persistentState
	issuer NexusID
	// attentions are unit attention conditions to establish.
	attentions map[NexusID][]ASC
	// preempted are the nexuses whose tasks PREEMPT AND ABORT ends.
	preempted []NexusID
}

// change begins a change by issuer.
func (s *persistentState) change(issuer NexusID) *prChange {
	c := &prChange{persistentState: *s, issuer: issuer, attentions: make(map[NexusID][]ASC)}
	c.registrations = slices.Clone(s.registrations)
	return c
}

// tell establishes a unit attention condition for a nexus, unless it is the one
// that makes the change and knows.
func (c *prChange) tell(id NexusID, asc ASC) {
	if id != c.issuer {
		c.attentions[id] = append(c.attentions[id], asc)
	}
}

// tellRegistered tells every registered nexus.
func (c *prChange) tellRegistered(asc ASC) {
	for _, r := range c.registrations {
		c.tell(r.nexus, asc)
	}
}

// register gives a nexus a key, in place of any that it has.
func (c *prChange) register(id NexusID, key uint64) error {
	if i := c.find(id); i >= 0 {
		c.registrations[i].key = key
		return nil
	}
	if len(c.registrations) >= maxRegistrations {
		return NewSense(KeyIllegalRequest, ASCInsufficientRegistrationResources)
	}
	c.registrations = append(c.registrations, registration{id, key})
	return nil
}

// unregister ends a registration, and the reservation with it if no holder is
// left (SPC-4 r37 5.12.11.2.3).
func (c *prChange) unregister(id NexusID) {
	i := c.find(id)
	if i < 0 {
		return
	}
	held := c.isHolder(id)
	c.registrations = slices.Delete(c.registrations, i, i+1)
	if !held || c.kind.allRegistrants() && len(c.registrations) > 0 {
		return
	}
	c.release()
}

// release ends the reservation. Registered nexuses that lose access by it are
// told.
func (c *prChange) release() {
	if c.kind.forRegistrants() {
		c.tellRegistered(ASCReservationsReleased)
	}
	c.kind, c.holder = 0, NexusID{}
}

// reserve makes issuer the holder.
func (c *prChange) reserve(kind reservationType) { c.kind, c.holder = kind, c.issuer }

// remove ends the registrations that match and have been preempted.
func (c *prChange) remove(match func(registration) bool) {
	c.registrations = slices.DeleteFunc(c.registrations, func(r registration) bool {
		if !match(r) {
			return false
		}
		c.tell(r.nexus, ASCRegistrationsPreempted)
		c.preempted = append(c.preempted, r.nexus)
		return true
	})
}

// clear ends the reservation and every registration (SPC-4 r37 5.12.11.2.8).
func (c *prChange) clear() {
	c.tellRegistered(ASCReservationsPreempted)
	c.registrations, c.kind, c.holder = nil, 0, NexusID{}
}

// equal reports whether two states differ in nothing that is kept.
func (s *persistentState) equal(o *persistentState) bool {
	return s.aptpl == o.aptpl && s.kind == o.kind && s.holder == o.holder &&
		slices.Equal(s.registrations, o.registrations)
}
