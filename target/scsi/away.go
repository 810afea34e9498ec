package scsi

import (
	"odx/target/scsi/sense"
)

// SetAway says whether the logical unit has moved to another server, or is about to: all its
// ports are in a state in which no command accesses the medium (SPC-4 r37 5.15.2.4), and
// commands that are held end with that too. Unavailable: it has moved. Transitioning: it is
// not known yet. Any other state ends that. Nexuses are notified of a change.
func (lu *LogicalUnit) SetAway(state PortState) {
	if state != Transitioning && state != Unavailable {
		state = ActiveOptimized
	}
	if PortState(lu.away.Swap(uint32(state))) != state {
		lu.establish(sense.ASCAsymmetricAccessStateChanged, nil)
	}
}

// Away returns the state that SetAway has set; ActiveOptimized: none.
func (lu *LogicalUnit) Away() PortState { return PortState(lu.away.Load()) }

// absent returns the sense data with which accesses end because the logical unit is away; nil
// if it is not.
func (lu *LogicalUnit) absent() error {
	switch lu.Away() {
	case Unavailable:
		return sense.New(sense.KeyNotReady, sense.ASCPortInUnavailableState)
	case Transitioning:
		return sense.New(sense.KeyNotReady, sense.ASCAsymmetricAccessStateTransition)
	}
	return nil
}

// reachAway is reach for a logical unit that is away.
func (lu *LogicalUnit) reachAway(cdb []byte) error {
	if lu.Away() == ActiveOptimized {
		return nil
	}
	if len(cdb) > 1 && reachableAction(cdb[0], cdb[1]&0x1F)&inUnavailable != 0 && cdb[0] != opMaintenanceOut {
		return nil
	}
	return lu.absent()
}

// shown returns the state that is reported of a port.
func (lu *LogicalUnit) shown(p *luPort) PortState {
	if away := lu.Away(); away != ActiveOptimized {
		return away
	}
	return p.current()
}
