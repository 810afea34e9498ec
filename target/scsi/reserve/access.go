package reserve

import "odx/target/scsi/nexus"

// Access classifies a command by its conflicts with reservations of other I_T nexuses:
// the command's row in the tables of SPC-4 r37 5.12.1 and SBC-3 4.17, and in SPC-2
// table 10. The table conflicts has the result for each.
type Access byte

// Kinds of access.
const (
	// AccessAlways: no reservation conflicts (INQUIRY, REPORT LUNS, READ CAPACITY, …),
	// or the command checks reservations itself (RESERVE).
	AccessAlways Access = iota
	// AccessState: only a RESERVE of another nexus conflicts (TEST UNIT READY).
	AccessState
	// AccessRead: the command reads the medium or related state (READ, VERIFY, MODE
	// SENSE, REPORT SUPPORTED OPERATION CODES, …); exclusive access conflicts.
	AccessRead
	// AccessWrite: the command changes the medium or the logical unit's state; every
	// reservation conflicts.
	AccessWrite
	// AccessPersistentReserve: PERSISTENT RESERVE IN and OUT conflict with any RESERVE,
	// including the sender's, and make all other checks themselves.
	AccessPersistentReserve

	accessKinds
)

// standing is the relation of an I_T nexus to the reservation of a logical unit.
type standing byte

const (
	// unrestricted: the nexus holds the persistent reservation, or is registered and
	// the type gives access to registrants.
	unrestricted standing = iota
	// holdsReserve: the nexus holds the logical unit by RESERVE.
	holdsReserve
	// outsideReserve: another nexus holds the logical unit by RESERVE.
	outsideReserve
	// outsideWriteExclusive: another nexus has reserved writing.
	outsideWriteExclusive
	// outsideExclusiveAccess: another nexus has reserved reading and writing.
	outsideExclusiveAccess

	standings
)

// conflicts has true for accesses that end with RESERVATION CONFLICT.
var conflicts = [standings][accessKinds]bool{
	unrestricted: {},
	holdsReserve: {AccessPersistentReserve: true},
	outsideReserve: {AccessState: true, AccessRead: true, AccessWrite: true,
		AccessPersistentReserve: true},
	outsideWriteExclusive:  {AccessWrite: true},
	outsideExclusiveAccess: {AccessRead: true, AccessWrite: true},
}

// view is an immutable summary of a reservation for the checks of commands.
type view struct {
	// reserver holds the logical unit by RESERVE. It is nil for a persistent
	// reservation, which permits every access to the nexuses in free, and to all others
	// what their standing allows.
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
