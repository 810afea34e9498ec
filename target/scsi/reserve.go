package scsi

import (
	"context"
	"encoding/binary"
	"slices"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// Access classifies a command by its conflicts with reservations of other I_T nexuses.
type Access = reserve.Access

// Kinds of access, as package reserve explains them.
const (
	AccessAlways            = reserve.AccessAlways
	AccessState             = reserve.AccessState
	AccessRead              = reserve.AccessRead
	AccessWrite             = reserve.AccessWrite
	AccessPersistentReserve = reserve.AccessPersistentReserve
)

// Reserved returns the error that a command of n currently ends with because of a
// reservation of the logical unit, or nil if an access of kind a is allowed. The device
// server checks every command that it executes; a copy manager calls Reserved for the
// other logical units of its command.
func (lu *LogicalUnit) Reserved(n *Nexus, a Access) error { return lu.reservations.Check(&n.ID, a) }

// reservedUnit implements reserve.Unit for a logical unit.
type reservedUnit struct{ lu *LogicalUnit }

// Ports implements reserve.Unit.
func (u reservedUnit) Ports() (targets []reserve.Port, attached []nexus.ID) {
	u.lu.mu.Lock()
	defer u.lu.mu.Unlock()
	for _, p := range u.lu.allPorts() {
		targets = append(targets, reserve.Port{Target: p.target, Tag: p.Tag, ID: p.ID})
	}
	for n := range u.lu.nexuses {
		attached = append(attached, n.ID)
	}
	return targets, attached
}

// RelativePort implements reserve.Unit.
func (u reservedUnit) RelativePort(id nexus.ID) uint16 { return u.lu.relativePort(id) }

// Attend implements reserve.Unit.
func (u reservedUnit) Attend(attentions map[nexus.ID][]sense.ASC) {
	u.lu.mu.Lock()
	defer u.lu.mu.Unlock()
	for n, itl := range u.lu.nexuses {
		for _, asc := range attentions[n.ID] {
			itl.establish(asc)
		}
	}
}

// prepareReserve6 checks RESERVE(6) and RELEASE(6) (SPC-2 7.21, 7.16): whole
// logical units for the sender only.
func prepareReserve6(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x10 != 0 { // 3RDPTY
		return sense.InvalidFieldInCDB(1, 4)
	}
	if cdb[1]&0x01 != 0 { // EXTENT
		return sense.InvalidFieldInCDB(1, 0)
	}
	return nil
}

// prepareReserve10 checks RESERVE(10) and RELEASE(10) (SPC-2 7.22, 7.17).
func prepareReserve10(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x02 != 0 { // LONGID
		return sense.InvalidFieldInCDB(1, 1)
	}
	if binary.BigEndian.Uint16(cdb[7:]) != 0 { // only a third party has parameters
		return sense.InvalidFieldInCDB(7, sense.WholeField)
	}
	return prepareReserve6(t)
}

// executeReserve is RESERVE(6) and RESERVE(10).
func executeReserve(ctx context.Context, t *Task) error {
	return t.LU.reservations.Reserve(ctx, &t.Nexus.ID)
}

// executeRelease is RELEASE(6) and RELEASE(10).
func executeRelease(_ context.Context, t *Task) error {
	return t.LU.reservations.Release(&t.Nexus.ID)
}

// executePersistentReserveIn is PERSISTENT RESERVE IN (SPC-4 r37 6.15).
func executePersistentReserveIn(_ context.Context, t *Task) error {
	cdb := t.CDB()
	t.SetDataIn(t.LU.reservations.Report(cdb[1]&0x1F), uint32(binary.BigEndian.Uint16(cdb[7:])))
	return nil
}

// preparePersistentReserveOut checks the CDB of PERSISTENT RESERVE OUT.
func preparePersistentReserveOut(t *Task) error {
	n := binary.BigEndian.Uint32(t.CDB()[5:])
	if n < reserve.MinList || n > reserve.MaxList {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	t.Wanted = n
	return nil
}

// executePersistentReserveOut is PERSISTENT RESERVE OUT (SPC-4 r37 6.16).
func executePersistentReserveOut(ctx context.Context, t *Task) error {
	lu := t.LU
	changed, err := lu.reservations.Change(ctx, &t.Nexus.ID, t.CDB(), t.DataOut()[:t.Wanted])
	if err != nil {
		return err
	}
	if changed.TookFrom && lu.audited() {
		t.audit("persistent reservations", changed.Before(), changed.After())
	}
	preempted := changed.Preempted
	if len(preempted) == 0 {
		return nil
	}
	for _, n := range lu.nexusesOf(preempted) {
		n.AbortTasks(lu, t)
	}
	lu.mu.Lock()
	callbacks := lu.onPreemptAndAbort
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(preempted)
	}
	return nil
}

// nexusesOf returns the attached nexuses among ids, and those that may still have tasks.
func (lu *LogicalUnit) nexusesOf(ids []NexusID) []*Nexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	var found []*Nexus
	for n := range lu.nexuses {
		if slices.Contains(ids, n.ID) {
			found = append(found, n)
		}
	}
	for _, itl := range lu.former {
		if n := itl.nexus; itl.tasks.Load() > 0 && slices.Contains(ids, n.ID) && !slices.Contains(found, n) {
			found = append(found, n)
		}
	}
	return found
}

// reservationCommands are PERSISTENT RESERVE IN and OUT, a row for each service
// action.
func reservationCommands() []command {
	in := func(action byte, name string) command {
		return command{int(action), Operation{Name: "PERSISTENT RESERVE IN, " + name,
			Usage:  []byte{opPersistentReserveIn, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessPersistentReserve, Execute: executePersistentReserveIn}}
	}
	out := func(action, scopeType byte, name string) command {
		return command{int(action), Operation{Name: "PERSISTENT RESERVE OUT, " + name,
			Usage:  []byte{opPersistentReserveOut, action, scopeType, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, naca},
			Access: AccessPersistentReserve, Prepare: preparePersistentReserveOut, Execute: executePersistentReserveOut}}
	}
	return []command{
		in(reserve.ReadKeys, "READ KEYS"),
		in(reserve.ReadReservation, "READ RESERVATION"),
		in(reserve.ReportCapabilities, "REPORT CAPABILITIES"),
		in(reserve.ReadFullStatus, "READ FULL STATUS"),
		out(reserve.Register, 0, "REGISTER"),
		out(reserve.Reserve, 0xFF, "RESERVE"),
		out(reserve.Release, 0xFF, "RELEASE"),
		out(reserve.Clear, 0, "CLEAR"),
		out(reserve.Preempt, 0xFF, "PREEMPT"),
		out(reserve.PreemptAndAbort, 0xFF, "PREEMPT AND ABORT"),
		out(reserve.RegisterAndIgnore, 0, "REGISTER AND IGNORE EXISTING KEY"),
		out(reserve.RegisterAndMove, 0, "REGISTER AND MOVE"),
	}
}
