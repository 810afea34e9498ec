package scsi

// Event is a change that an initiator has made to a logical unit, and that outlives its
// session.
type Event struct {
	// Unit is the logical unit, LUN the number by which the initiator addressed it.
	Unit *LogicalUnit
	LUN  uint16
	// Nexus is who made the change.
	Nexus NexusID
	// What was changed: "persistent reservations", "access state of target port group 2",
	// "saved mode page 08h". Command is the command by its name in the standard.
	What, Command string
	// Before and After are the values in words; "none" for nothing.
	Before, After string
}

// audit reports what the task has changed, unless that is nothing.
func (t *Task) audit(what, before, after string) {
	lu := t.LU
	if lu.config.Audit == nil || before == after {
		return
	}
	lu.config.Audit(Event{
		Unit: lu, LUN: t.itl.lun, Nexus: t.Nexus.ID, What: what, Command: t.op.Name, Before: before, After: after,
	})
}

// audited reports whether changes are reported.
func (lu *LogicalUnit) audited() bool { return lu.config.Audit != nil }
