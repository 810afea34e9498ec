package copymgr

import (
	"slices"

	"odx/target/scsi"
)

// Using reports whether a copy is under way that accesses a logical unit and is no command of
// it: one in the background, or of another logical unit. It would go on with the volume that
// it has found.
//
// A command of another logical unit that begins later waits for the end of a hold.
func (m *Manager) Using(lu *scsi.LogicalUnit) bool {
	o := m.operations
	o.mu.Lock()
	defer o.mu.Unlock()
	for op := range o.running {
		if op.owner.lu == lu && op.background ||
			op.owner.lu != lu && slices.ContainsFunc(op.uses, func(u use) bool { return u.lu == lu }) {
			return true
		}
	}
	return false
}

// Renamed takes over that a logical unit has another volume, with that name in token records
// and copy rules. No command of it is under way.
func (m *Manager) Renamed(lu *scsi.LogicalUnit, volume string) {
	for _, u := range m.installed() {
		if u.lu == lu {
			u.volume.Store(&volume)
			u.mapped.Store(m.engine.Shares(lu.Volume()))
			u.limit(m.tokens.Limits())
		}
	}
}

// name returns the name of the volume.
func (u *logicalUnit) name() string { return *u.volume.Load() }
