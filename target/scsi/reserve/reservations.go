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

// Port is a target port by which a logical unit is reached.
type Port struct {
	// Target is the name of the target, Tag the portal group tag of the port.
	Target string
	Tag    uint16
	// ID is the relative target port identifier.
	ID uint16
}

// Unit is a logical unit as its reservations see it.
type Unit interface {
	// Ports returns the target ports by which the logical unit is reached, and the
	// nexuses that are attached.
	Ports() ([]Port, []nexus.ID)
	// RelativePort returns the relative target port identifier of a nexus; 0 where there
	// is no such port any more.
	RelativePort(nexus.ID) uint16
	// Attend establishes unit attention conditions for the nexuses that are attached.
	// The others meet I_T NEXUS LOSS OCCURRED or POWER ON when they come back, which
	// has them look at everything again.
	Attend(map[nexus.ID][]sense.ASC)
}

// Reservations are those of a logical unit. Methods may be called concurrently. A nexus
// is named by a pointer to its ID, the same one as long as it is attached: what RESERVE
// reserves is the session's, and ends with it; persistent reservations belong to the two
// ports that the ID names.
type Reservations struct {
	unit    Unit
	records record.Store // nil: nothing outlives a loss of power

	// reserved is the reservation that commands meet, nil for none. It goes with
	// persistent, which is never nil; who changes either holds changing.
	reserved   atomic.Pointer[view]
	persistent atomic.Pointer[state]
	changing   lock
}

// Open returns the reservations of a logical unit, with those that its records keep. With
// nil records, nothing is kept, and REPORT CAPABILITIES says so.
func Open(unit Unit, records record.Store) (*Reservations, error) {
	r := &Reservations{unit: unit, records: records, changing: make(lock, 1)}
	s, err := load(records)
	if err != nil {
		return nil, err
	}
	r.persistent.Store(s)
	r.reserved.Store(s.view())
	return r, nil
}

// Check returns ErrConflict if an access of kind a by n is not allowed now.
func (r *Reservations) Check(n *nexus.ID, a Access) error {
	if v := r.reserved.Load(); v != nil && conflicts[v.of(n)][a] {
		return ErrConflict
	}
	return nil
}

// Detach ends what n holds by RESERVE; its session has ended.
func (r *Reservations) Detach(n *nexus.ID) {
	r.release(func(reserver *nexus.ID) bool { return reserver == n })
}

// Reset ends what RESERVE has reserved; persistent reservations stay (SAM-5 6.3.3).
func (r *Reservations) Reset() { r.release(func(*nexus.ID) bool { return true }) }

// release ends a RESERVE whose holder passes.
func (r *Reservations) release(pass func(reserver *nexus.ID) bool) {
	if v := r.reserved.Load(); v != nil && v.reserver != nil && pass(v.reserver) {
		// Nothing takes the place of a RESERVE but its end.
		r.reserved.CompareAndSwap(v, nil)
	}
}

// lock is held by commands that make or change reservations, also while they wait for a
// store; it is no mutex so that an aborted command stops waiting. Commands that only
// look at reservations do not need it, nor does release.
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
	if done, err := r.besidePersistent(n); done {
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

// Release is RELEASE(6) and RELEASE(10): it releases what n holds; a release by another
// nexus is no error and does nothing.
func (r *Reservations) Release(n *nexus.ID) error {
	if done, err := r.besidePersistent(n); done {
		return err
	}
	r.Detach(n)
	return nil
}

// besidePersistent ends RESERVE and RELEASE where registrations exist: without
// effect where the sender could do as much by its registration (SPC-4 r37
// 5.12.3, CRH), in conflict elsewhere (SPC-2 5.5.1).
func (r *Reservations) besidePersistent(n *nexus.ID) (done bool, err error) {
	s := r.persistent.Load()
	if len(s.registrations) == 0 {
		return false, nil
	}
	if s.unrestricted(*n) {
		return true, nil
	}
	return true, ErrConflict
}

// Change is PERSISTENT RESERVE OUT of n, whose parameter list has MinList bytes at
// least. After PREEMPT AND ABORT, the tasks of the preempted nexuses are to be aborted.
// Errors are ErrConflict, sense data, or of the records.
func (r *Reservations) Change(ctx context.Context, n *nexus.ID, cdb, list []byte) (preempted []nexus.ID, err error) {
	c, err := parseOut(cdb, list)
	if err != nil {
		return nil, err
	}
	preempted, err = r.carryOut(ctx, n, c)
	if c.action != PreemptAndAbort {
		preempted = nil
	}
	return preempted, err
}

// carryOut works on a copy of the state, keeps that if it has to outlast a loss of
// power, and only then lets others see it.
func (r *Reservations) carryOut(ctx context.Context, n *nexus.ID, out *command) (preempted []nexus.ID, err error) {
	if err := r.changing.lock(ctx); err != nil {
		return nil, err
	}
	defer r.changing.unlock()
	if err := r.Check(n, AccessPersistentReserve); err != nil {
		return nil, err
	}
	old := r.persistent.Load()
	c := old.begin(*n)
	if err := c.apply(out, r.portsFor(old)); err != nil {
		return nil, err
	}
	if c.next.aptpl && r.records == nil {
		return nil, out.refuseAPTPL()
	}
	if err := keep(ctx, r.records, old, &c.next); err != nil {
		return nil, err
	}
	r.persistent.Store(&c.next)
	r.reserved.Store(c.next.view())
	if len(c.attentions) > 0 {
		r.unit.Attend(c.attentions)
	}
	return c.preempted, nil
}

// portsFor returns the ports that a PERSISTENT RESERVE OUT can mean.
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
