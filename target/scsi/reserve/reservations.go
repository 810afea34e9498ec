package reserve

import (
	"context"
	"errors"
	"sync/atomic"

	"odx/target/scsi/nexus"
	"odx/target/scsi/record"
	"odx/target/scsi/sense"
)

// ErrConflict ends a command with RESERVATION CONFLICT status.
var ErrConflict = errors.New("reservation conflict")

// Port is a target port of a logical unit.
type Port struct {
	// Target is the name of the target, Tag the portal group tag of the port.
	Target string
	Tag    uint16
	// ID is the relative target port identifier.
	ID uint16
}

// Unit is the logical unit of Reservations.
type Unit interface {
	// Ports returns the target ports of the logical unit, and the attached nexuses.
	Ports() ([]Port, []nexus.ID)
	// RelativePort returns the relative target port identifier of a nexus; 0 if the
	// port no longer exists.
	RelativePort(nexus.ID) uint16
	// Attend establishes unit attention conditions for the attached nexuses. The others
	// get I_T NEXUS LOSS OCCURRED or POWER ON when they return, and then read all state
	// again.
	Attend(map[nexus.ID][]sense.ASC)
}

// Reservations are those of a logical unit. Methods may be called concurrently. A nexus
// is identified by a pointer to its ID, the same one while it is attached: a RESERVE
// belongs to the session and ends with it; persistent reservations belong to the two
// ports in the ID.
type Reservations struct {
	unit    Unit
	records record.Store // nil: nothing survives a loss of power
	era     record.Store // survives the process alone

	// reserved is the reservation that commands are checked against, nil for none. It
	// goes with persistent, which is never nil. A change of either requires changing.
	reserved   atomic.Pointer[view]
	persistent atomic.Pointer[state]
	changing   lock
}

// Open returns the reservations of a logical unit: those in era, which outlive the
// process, else those in records, which outlive a loss of power. With nil records none
// do, and REPORT CAPABILITIES reports so.
func Open(unit Unit, records, era record.Store) (*Reservations, error) {
	r := &Reservations{unit: unit, records: records, era: era, changing: make(lock, 1)}
	s, err := loadCurrent(r.durable(), era)
	if err != nil {
		return nil, err
	}
	r.persistent.Store(s)
	r.reserved.Store(s.view())
	return r, nil
}

// Check returns ErrConflict if an access of kind a by n is currently not allowed.
func (r *Reservations) Check(n *nexus.ID, a Access) error {
	if v := r.reserved.Load(); v != nil && conflicts[v.of(n)][a] {
		return ErrConflict
	}
	return nil
}

// Detach ends a RESERVE of n, whose session has ended.
func (r *Reservations) Detach(n *nexus.ID) {
	r.release(func(reserver *nexus.ID) bool { return reserver == n })
}

// Holds reports whether n holds the logical unit by RESERVE.
func (r *Reservations) Holds(n *nexus.ID) bool {
	v := r.reserved.Load()
	return v != nil && v.reserver == n
}

// Restore makes n hold the logical unit by RESERVE, as it did in the process before this
// one. It has no effect if the logical unit is reserved.
func (r *Reservations) Restore(n *nexus.ID) { r.reserved.CompareAndSwap(nil, &view{reserver: n}) }

// Reset ends a RESERVE; persistent reservations stay (SAM-5 6.3.3).
func (r *Reservations) Reset() { r.release(func(*nexus.ID) bool { return true }) }

// PowerOff drops what outlives the process but no loss of power. No command may follow.
func (r *Reservations) PowerOff(ctx context.Context) error { return r.era.Save(ctx, recordKey, nil) }

// release ends a RESERVE whose holder passes.
func (r *Reservations) release(pass func(reserver *nexus.ID) bool) {
	if v := r.reserved.Load(); v != nil && v.reserver != nil && pass(v.reserver) {
		// Only its end replaces a RESERVE.
		r.reserved.CompareAndSwap(v, nil)
	}
}

// lock is held by commands that create or change reservations, also while they wait for
// the store. It is a channel, not a mutex, so that an aborted command stops waiting.
// Commands that only check reservations do not need it, nor does release.
type lock chan struct{}

func (l lock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) unlock() { <-l }

// Reserve is RESERVE(6) and RESERVE(10) of n.
func (r *Reservations) Reserve(ctx context.Context, n *nexus.ID) error {
	if err := r.changing.lock(ctx); err != nil {
		return err
	}
	defer r.changing.unlock()
	if done, err := r.checkRegistrations(n); done {
		return err
	}
	if r.reserved.CompareAndSwap(nil, &view{reserver: n}) {
		return nil
	}
	if v := r.reserved.Load(); v != nil && v.reserver == n {
		return nil
	}
	return ErrConflict
}

// Release is RELEASE(6) and RELEASE(10): it releases a RESERVE of n; a release by
// another nexus is no error and has no effect.
func (r *Reservations) Release(n *nexus.ID) error {
	if done, err := r.checkRegistrations(n); done {
		return err
	}
	r.Detach(n)
	return nil
}

// checkRegistrations decides RESERVE and RELEASE while registrations exist: no effect
// if the sender's registration permits the same (SPC-4 r37 5.12.3, CRH), otherwise a
// conflict (SPC-2 5.5.1).
func (r *Reservations) checkRegistrations(n *nexus.ID) (done bool, err error) {
	s := r.persistent.Load()
	if len(s.registrations) == 0 {
		return false, nil
	}
	if s.unrestricted(*n) {
		return true, nil
	}
	return true, ErrConflict
}

// Changed is what a PERSISTENT RESERVE OUT has changed.
type Changed struct {
	// Preempted are the nexuses whose tasks PREEMPT AND ABORT ends.
	Preempted []nexus.ID
	// TookFrom: other nexuses have lost registrations or the reservation (CLEAR, PREEMPT,
	// PREEMPT AND ABORT).
	TookFrom      bool
	before, after *state
}

// Before and After describe the persistent reservations in words, "none" for none.
func (c *Changed) Before() string { return c.before.String() }

// After is described at Before.
func (c *Changed) After() string { return c.after.String() }

// Change is PERSISTENT RESERVE OUT of n; list has at least MinList bytes. The caller aborts
// the tasks of the preempted nexuses. Errors are ErrConflict, sense data, or those of the
// records.
func (r *Reservations) Change(ctx context.Context, n *nexus.ID, cdb, list []byte) (done Changed, err error) {
	c, err := parseOut(cdb, list)
	if err != nil {
		return done, err
	}
	return r.carryOut(ctx, n, c)
}

// carryOut applies a command to a copy of the state, stores that, and then makes it
// visible.
func (r *Reservations) carryOut(ctx context.Context, n *nexus.ID, out *command) (done Changed, err error) {
	if err := r.changing.lock(ctx); err != nil {
		return done, err
	}
	defer r.changing.unlock()
	if err := r.Check(n, AccessPersistentReserve); err != nil {
		return done, err
	}
	old := r.persistent.Load()
	c := old.newChange(*n)
	if err := c.apply(out, r.portsFor(old)); err != nil {
		return done, err
	}
	if c.next.aptpl && r.records == nil {
		return done, out.refuseAPTPL()
	}
	if err := r.keep(ctx, old, &c.next); err != nil {
		return done, err
	}
	r.persistent.Store(&c.next)
	r.reserved.Store(c.next.view())
	if len(c.attentions) > 0 {
		r.unit.Attend(c.attentions)
	}
	done = Changed{before: old, after: &c.next}
	switch out.action {
	case PreemptAndAbort:
		done.Preempted, done.TookFrom = c.preempted, true
	case Clear, Preempt:
		done.TookFrom = true
	}
	return done, nil
}

// portsFor returns the ports that a PERSISTENT RESERVE OUT can affect.
func (r *Reservations) portsFor(s *state) knownPorts {
	var k knownPorts
	for _, g := range s.registrations {
		k.initiators = append(k.initiators, g.nexus)
	}
	targets, attached := r.unit.Ports()
	k.targets, k.initiators = targets, append(k.initiators, attached...)
	return k
}

// Report returns the parameter data of a service action of PERSISTENT RESERVE IN.
func (r *Reservations) Report(action byte) []byte {
	switch action {
	case ReadKeys:
		return r.readKeys()
	case ReadReservation:
		return r.readReservation()
	case ReportCapabilities:
		return r.reportCapabilities()
	default:
		return r.readFullStatus()
	}
}
