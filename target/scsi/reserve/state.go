package reserve

import (
	"fmt"
	"slices"
	"strings"

	"odx/target/scsi/nexus"
	"odx/target/scsi/sense"
)

// Type is the TYPE field of a persistent reservation (SPC-4 r37
// 6.15.3.4); zero stands for none.
type Type byte

// Types of persistent reservations.
const (
	WriteExclusive                 Type = 1
	ExclusiveAccess                Type = 3
	WriteExclusiveRegistrantsOnly  Type = 5
	ExclusiveAccessRegistrantsOnly Type = 6
	WriteExclusiveAllRegistrants   Type = 7
	ExclusiveAccessAllRegistrants  Type = 8
)

// String returns the name of the type.
func (k Type) String() string {
	switch k {
	case WriteExclusive:
		return "write exclusive"
	case ExclusiveAccess:
		return "exclusive access"
	case WriteExclusiveRegistrantsOnly:
		return "write exclusive, registrants only"
	case ExclusiveAccessRegistrantsOnly:
		return "exclusive access, registrants only"
	case WriteExclusiveAllRegistrants:
		return "write exclusive, all registrants"
	case ExclusiveAccessAllRegistrants:
		return "exclusive access, all registrants"
	}
	return "none"
}

func (k Type) valid() bool {
	return k == WriteExclusive || k == ExclusiveAccess || k.forRegistrants()
}

// forRegistrants reports whether every registered nexus has access.
func (k Type) forRegistrants() bool {
	return k >= WriteExclusiveRegistrantsOnly && k <= ExclusiveAccessAllRegistrants
}

// allRegistrants reports whether every registered nexus is a holder.
func (k Type) allRegistrants() bool {
	return k == WriteExclusiveAllRegistrants || k == ExclusiveAccessAllRegistrants
}

// outside returns the standing of nexuses without access by the reservation.
func (k Type) outside() standing {
	switch k {
	case 0:
		return unrestricted
	case WriteExclusive, WriteExclusiveRegistrantsOnly, WriteExclusiveAllRegistrants:
		return outsideWriteExclusive
	}
	return outsideExclusiveAccess
}

// registration is an I_T nexus with its reservation key. It outlives sessions: a nexus
// is its two ports.
type registration struct {
	nexus nexus.ID
	key   uint64
}

// state is what PERSISTENT RESERVE OUT changes. A logical unit
// replaces it as a whole.
type state struct {
	// generation is PRGENERATION, zero at power on.
	generation uint32
	// aptpl: the state survives a loss of power (PTPL_A).
	aptpl         bool
	registrations []registration // in order of creation
	// kind is the type of the persistent reservation, zero for none. Its scope is
	// always the logical unit.
	kind Type
	// holder is registered. It has no meaning without a reservation, or if all
	// registrants hold it.
	holder nexus.ID
}

// String describes the state, for people.
func (s *state) String() string {
	if len(s.registrations) == 0 {
		return "none"
	}
	names := make([]string, len(s.registrations))
	for i, r := range s.registrations {
		names[i] = fmt.Sprintf("%s (key %Xh)", r.nexus.InitiatorName, r.key)
	}
	slices.Sort(names)
	registered := "registered: " + strings.Join(slices.Compact(names), ", ")
	switch {
	case s.kind == 0:
		return registered
	case s.kind.allRegistrants():
		return s.kind.String() + "; " + registered
	}
	return fmt.Sprintf("%s, held by %s; %s", s.kind, s.holder.InitiatorName, registered)
}

func (s *state) find(id nexus.ID) int {
	return slices.IndexFunc(s.registrations, func(r registration) bool { return r.nexus == id })
}

// key returns the reservation key of a nexus, zero when it is not registered.
func (s *state) key(id nexus.ID) uint64 {
	if i := s.find(id); i >= 0 {
		return s.registrations[i].key
	}
	return 0
}

func (s *state) hasKey(key uint64) bool {
	return slices.ContainsFunc(s.registrations, func(r registration) bool { return r.key == key })
}

// isHolder reports whether a nexus is a persistent reservation holder.
func (s *state) isHolder(id nexus.ID) bool {
	switch {
	case s.kind == 0:
		return false
	case s.kind.allRegistrants():
		return s.find(id) >= 0
	}
	return s.holder == id
}

// unrestricted reports whether the current reservation gives a nexus every access.
func (s *state) unrestricted(id nexus.ID) bool {
	return s.isHolder(id) || s.kind.forRegistrants() && s.find(id) >= 0
}

// view returns the state as a view for commands, or nil if nothing is reserved.
func (s *state) view() *view {
	if s.kind == 0 {
		return nil
	}
	r := &view{free: make(map[nexus.ID]struct{}), others: s.kind.outside()}
	for _, g := range s.registrations {
		if s.kind.forRegistrants() || s.isHolder(g.nexus) {
			r.free[g.nexus] = struct{}{}
		}
	}
	return r
}

// change is one PERSISTENT RESERVE OUT in progress: the next state, and the actions
// that follow once it is in effect.
type change struct {
	next   state
	issuer nexus.ID
	// attentions are unit attention conditions to establish.
	attentions map[nexus.ID][]sense.ASC
	// preempted are the nexuses whose tasks PREEMPT AND ABORT ends.
	preempted []nexus.ID
}

// newChange returns a change by issuer.
func (s *state) newChange(issuer nexus.ID) *change {
	c := &change{next: *s, issuer: issuer, attentions: make(map[nexus.ID][]sense.ASC)}
	c.next.registrations = slices.Clone(s.registrations)
	return c
}

// notify establishes a unit attention condition for a nexus, except for the issuer of
// the change.
func (c *change) notify(id nexus.ID, asc sense.ASC) {
	if id != c.issuer {
		c.attentions[id] = append(c.attentions[id], asc)
	}
}

// notifyRegistered notifies every registered nexus.
func (c *change) notifyRegistered(asc sense.ASC) {
	for _, r := range c.next.registrations {
		c.notify(r.nexus, asc)
	}
}

// register sets the key of a nexus, replacing any other.
func (c *change) register(id nexus.ID, key uint64) error {
	if i := c.next.find(id); i >= 0 {
		c.next.registrations[i].key = key
		return nil
	}
	if len(c.next.registrations) >= MaxRegistrations {
		return sense.New(sense.KeyIllegalRequest, sense.ASCInsufficientRegistrationResources)
	}
	c.next.registrations = append(c.next.registrations, registration{id, key})
	return nil
}

// unregister ends a registration, and the reservation with it if no holder is
// left (SPC-4 r37 5.12.11.2.3).
func (c *change) unregister(id nexus.ID) {
	i := c.next.find(id)
	if i < 0 {
		return
	}
	held := c.next.isHolder(id)
	c.next.registrations = slices.Delete(c.next.registrations, i, i+1)
	if !held || c.next.kind.allRegistrants() && len(c.next.registrations) > 0 {
		return
	}
	c.release()
}

// release ends the reservation and notifies registered nexuses that lose access.
func (c *change) release() {
	if c.next.kind.forRegistrants() {
		c.notifyRegistered(sense.ASCReservationsReleased)
	}
	c.next.kind, c.next.holder = 0, nexus.ID{}
}

// reserve makes issuer the holder.
func (c *change) reserve(kind Type) { c.next.kind, c.next.holder = kind, c.issuer }

// remove ends the registrations that match and have been preempted.
func (c *change) remove(match func(registration) bool) {
	c.next.registrations = slices.DeleteFunc(c.next.registrations, func(r registration) bool {
		if !match(r) {
			return false
		}
		c.notify(r.nexus, sense.ASCRegistrationsPreempted)
		c.preempted = append(c.preempted, r.nexus)
		return true
	})
}

// clear ends the reservation and every registration (SPC-4 r37 5.12.11.2.8).
func (c *change) clear() {
	c.notifyRegistered(sense.ASCReservationsPreempted)
	c.next.registrations, c.next.kind, c.next.holder = nil, 0, nexus.ID{}
}

// equal reports whether the stored parts of two states are equal.
func (s *state) equal(o *state) bool {
	return s.aptpl == o.aptpl && s.kind == o.kind && s.holder == o.holder &&
		slices.Equal(s.registrations, o.registrations)
}
