package scsi

// Reserved returns the error that a command of n ends with because another I_T
// nexus has reserved the logical unit, nil when an access of kind a is allowed
// now. A command is checked before it is prepared and needs no second look; a
// copy manager asks for the logical units that its command was not sent to.
func (lu *LogicalUnit) Reserved(n *Nexus, a Access) error {
	if a == AccessAlways {
		return nil
	}
	if holder := lu.reserved.Load(); holder != nil && holder != n {
		return errReservationConflict
	}
	return nil
}
