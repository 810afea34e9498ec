package scsi

import (
	"context"
	"encoding/binary"
)

// Access says how a command meets the reservations of other I_T nexuses: it is
// the command's row in the tables of SPC-4 r37 5.12.1 and SBC-3 4.17, and in
// SPC-2 table 10. conflicts has what becomes of each.
type Access byte

// Kinds of access.
const (
	// AccessAlways: no reservation conflicts with it (INQUIRY, REPORT LUNS, READ
	// CAPACITY, …), or the command looks at reservations itself (RESERVE).
	AccessAlways Access = iota
	// AccessState: only a RESERVE of another nexus conflicts with it (TEST UNIT
	// READY).
	AccessState
	// AccessRead: it reads the medium, or state that goes with it (READ, VERIFY,
	// MODE SENSE, REPORT SUPPORTED OPERATION CODES, …); exclusive access conflicts
	// with it.
	AccessRead
	// AccessWrite: it changes the medium or the logical unit's state; every
	// reservation conflicts with it.
	AccessWrite
	// AccessPersistentReserve: PERSISTENT RESERVE IN and OUT conflict with any
	// RESERVE, the sender's too; whatever else they need they check themselves.
	AccessPersistentReserve

	accessKinds
)

// standing is what an I_T nexus is to the reservation of a logical unit.
type standing byte

const (
	// unrestricted: it holds the persistent reservation, or is registered where
	// that is enough (the types registrants only and all registrants).
	unrestricted standing = iota
	// holdsReserve: it holds the logical unit by RESERVE.
	holdsReserve
	// outsideReserve: another nexus does.
	outsideReserve
	// outsideWriteExclusive: others have reserved writing.
	outsideWriteExclusive
	// outsideExclusiveAccess: others have reserved reading and writing.
	outsideExclusiveAccess

	standings
)

// conflicts says which accesses end with RESERVATION CONFLICT.
var conflicts = [standings][accessKinds]bool{
	unrestricted: {},
	holdsReserve: {AccessPersistentReserve: true},
	outsideReserve: {AccessState: true, AccessRead: true, AccessWrite: true,
		AccessPersistentReserve: true},
	outsideWriteExclusive:  {AccessWrite: true},
	outsideExclusiveAccess: {AccessRead: true, AccessWrite: true},
}

// reservation is a reservation as commands look at it. It is replaced as a
// whole and never changed.
type reservation struct {
	// reserver holds the logical unit by RESERVE; nil for a persistent
	// reservation, which leaves every access to the nexuses in free, and what
	// their standing allows to all others.
	reserver *Nexus
	free     map[NexusID]struct{}
	others   standing
}

// of returns the standing of n.
func (r *reservation) of(n *Nexus) standing {
	if r.reserver != nil {
		if r.reserver == n {
			return holdsReserve
		}
		return outsideReserve
	}
	if _, ok := r.free[n.ID]; ok {
		return unrestricted
	}
	return r.others
}

// Reserved returns the error that a command of n ends with because of a
// reservation of the logical unit, nil when an access of kind a is allowed now.
// A command to the logical unit has been checked when it is executed; a copy
// manager asks about the logical units that its command was not sent to.
func (lu *LogicalUnit) Reserved(n *Nexus, a Access) error {
	if r := lu.reserved.Load(); r != nil && conflicts[r.of(n)][a] {
		return errReservationConflict
	}
	return nil
}

// release ends what n (nil: anyone) holds by RESERVE.
func (lu *LogicalUnit) release(n *Nexus) {
	r := lu.reserved.Load()
	if r != nil && r.reserver != nil && (n == nil || r.reserver == n) {
		// Nothing takes the place of a RESERVE but its end.
		lu.reserved.CompareAndSwap(r, nil)
	}
}

// reservationLock is held by whoever makes or changes reservations, also while
// it waits for a store; it is no mutex so that an aborted command stops waiting.
// Commands that only look at reservations do not need it, nor does release.
type reservationLock chan struct{}

func (l reservationLock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l reservationLock) unlock() { <-l }

// prepareReserve6 checks RESERVE(6) and RELEASE(6) (SPC-2 7.21, 7.16): whole
// logical units for the sender only.
func prepareReserve6(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x10 != 0 { // 3RDPTY
		return InvalidFieldInCDB(1, 4)
	}
	if cdb[1]&0x01 != 0 { // EXTENT
		return InvalidFieldInCDB(1, 0)
	}
	return nil
}

// prepareReserve10 checks RESERVE(10) and RELEASE(10) (SPC-2 7.22, 7.17).
func prepareReserve10(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x02 != 0 { // LONGID
		return InvalidFieldInCDB(1, 1)
	}
	if binary.BigEndian.Uint16(cdb[7:]) != 0 { // only a third party has parameters
		return InvalidFieldInCDB(7, WholeField)
	}
	return prepareReserve6(t)
}

// executeReserve is RESERVE(6) and RESERVE(10).
func executeReserve(ctx context.Context, t *Task) error {
	lu := t.LU
	if err := lu.changing.lock(ctx); err != nil {
		return err
	}
	defer lu.changing.unlock()
	if done, err := lu.besidePersistent(t.Nexus); done {
		return err
	}
	if lu.reserved.CompareAndSwap(nil, &reservation{reserver: t.Nexus}) {
		return nil
	}
	return lu.reservedByOther(t.Nexus)
}

// reservedByOther is the end of a RESERVE that found the logical unit reserved.
func (lu *LogicalUnit) reservedByOther(n *Nexus) error {
	if r := lu.reserved.Load(); r != nil && r.reserver == n {
		return nil
	}
	return errReservationConflict
}

// executeRelease is RELEASE(6) and RELEASE(10): it releases what the sender
// holds; a release by anyone else is no error and does nothing.
func executeRelease(_ context.Context, t *Task) error {
	if done, err := t.LU.besidePersistent(t.Nexus); done {
		return err
	}
	t.LU.release(t.Nexus)
	return nil
}

// besidePersistent ends RESERVE and RELEASE where registrations exist: without
// effect where the sender could do as much by its registration (SPC-4 r37
// 5.12.3, CRH), in conflict elsewhere (SPC-2 5.5.1).
func (lu *LogicalUnit) besidePersistent(n *Nexus) (done bool, err error) {
	s := lu.persistent.Load()
	if len(s.registrations) == 0 {
		return false, nil
	}
	if s.unrestricted(n.ID) {
		return true, nil
	}
	return true, errReservationConflict
}
