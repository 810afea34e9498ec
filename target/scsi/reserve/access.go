package reserve

import "odx/target/scsi/nexus"

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

// view is a reservation as commands look at it. It is replaced as a
// whole and never changed.
type view struct {
	// reserver holds the logical unit by RESERVE; nil for a persistent
	// reservation, which leaves every access to the nexuses in free, and what
	// their standing allows to all others.
	reserver *nexus.ID
	free     map[nexus.ID]struct{}
	others   standing
}

// of returns the standing of n.
func (r *view) of(n *nexus.ID) standing {
	if r.reserver != nil {
		if r.reserver == n {
			return holdsReserve
		}
		return outsideReserve
	}
	if _, ok := r.free[*n]; ok {
		return unrestricted
	}
	return r.others
}
