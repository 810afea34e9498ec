package scsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"odx/target/scsi/sense"
)

// States of target port groups as the descriptors report them: all but transitioning,
// which no change of state persists in.
const supportedPortStates = 0x01 | 0x02 | 0x04 | 0x08 // AO_SUP, AN_SUP, S_SUP, U_SUP

// maxSetPortGroupsList bounds the parameter list of SET TARGET PORT GROUPS, in
// bytes.
const maxSetPortGroupsList = 4 + 4*0xFFFF

// executeReportTargetPortGroups is REPORT TARGET PORT GROUPS (SPC-4 r37 6.37).
func executeReportTargetPortGroups(_ context.Context, t *Task) error {
	const (
		lengthOnly     = 0
		extendedHeader = 1
	)
	cdb := t.CDB()
	header := 4
	switch cdb[1] >> 5 { // PARAMETER DATA FORMAT
	case lengthOnly:
	case extendedHeader:
		header = 8
	default:
		return sense.InvalidFieldInCDB(1, 7)
	}
	d := make([]byte, header)
	if header > 4 {
		d[4] = extendedHeader << 4 // IMPLICIT TRANSITION TIME is 0: not reported
	}
	t.LU.mu.Lock()
	ports := t.LU.allPorts()
	t.LU.mu.Unlock()
	for _, p := range ports {
		d = p.appendDescriptor(d, t.LU.shown(p))
	}
	binary.BigEndian.PutUint32(d, uint32(len(d)-4))
	t.SetDataIn(d, binary.BigEndian.Uint32(cdb[6:]))
	return nil
}

// appendDescriptor appends the target port group descriptor of a port in a state.
func (p *luPort) appendDescriptor(d []byte, state PortState) []byte {
	const pref = 0x80
	first := byte(state)
	if p.Preferred {
		first |= pref
	}
	d = append(d, first, supportedPortStates)
	d = binary.BigEndian.AppendUint16(d, p.ID)
	d = append(d, 0, byte(p.changedBy.Load()), 0, 1, 0, 0)
	return binary.BigEndian.AppendUint16(d, p.ID)
}

// prepareSetTargetPortGroups bounds the parameter list.
func prepareSetTargetPortGroups(t *Task) error {
	n := binary.BigEndian.Uint32(t.CDB()[6:])
	if n > maxSetPortGroupsList || n != 0 && n < 4 {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	t.Wanted = n
	return nil
}

// executeSetTargetPortGroups is SET TARGET PORT GROUPS (SPC-4 r37 6.45).
func executeSetTargetPortGroups(ctx context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list)%4 != 0 {
		return sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	t.LU.mu.Lock()
	ports := t.LU.allPorts()
	before := statesOf(ports)
	changed, err := t.LU.setPorts(list, t.Nexus.ID.InitiatorName)
	after := statesOf(ports)
	t.LU.mu.Unlock()
	if err != nil || !changed {
		return err
	}
	for i, p := range ports {
		t.audit(fmt.Sprintf("access state of target port group %d", p.ID), before[i].String(), after[i].String())
	}
	t.LU.establish(sense.ASCAsymmetricAccessStateChanged, t.Nexus)
	return t.LU.keepPorts(ctx)
}

// statesOf returns the states of ports.
func statesOf(ports []*luPort) []PortState {
	states := make([]PortState, len(ports))
	for i, p := range ports {
		states[i] = p.current()
	}
	return states
}

// setPorts applies the descriptors of a parameter list, after checking all of it. The
// caller holds lu.mu.
func (lu *LogicalUnit) setPorts(list []byte, initiator string) (changed bool, err error) {
	ports := lu.allPorts()
	wanted := make(map[*luPort]PortState)
	for at := 4; at < len(list); at += 4 {
		state := PortState(list[at] & 0x0F)
		if !state.settable() {
			return false, sense.InvalidFieldInParameterList(at, 3)
		}
		id := binary.BigEndian.Uint16(list[at+2:])
		i := slices.IndexFunc(ports, func(p *luPort) bool { return p.ID == id && !p.implicitOnly })
		if i < 0 {
			return false, sense.InvalidFieldInParameterList(at+2, sense.WholeField)
		}
		wanted[ports[i]] = state
	}
	for _, p := range ports {
		if state, ok := wanted[p]; ok {
			changed = p.set(state, changedByCommand, initiator) || changed
		}
	}
	return lu.followPorts(wanted, initiator) || changed, nil
}

// followPorts changes the ports that SET TARGET PORT GROUPS did not name, where the
// configuration makes them depend on those it did. A port that is made optimized, but
// is not so by configuration, takes the place of those that are: these get its former
// state. When one of them is made optimized again, all return to their configured
// states. The caller holds lu.mu.
func (lu *LogicalUnit) followPorts(wanted map[*luPort]PortState, initiator string) (changed bool) {
	for promoted, state := range wanted {
		if state != ActiveOptimized {
			continue
		}
		for _, p := range lu.ports[promoted.target] {
			if _, named := wanted[p]; named || p.implicitOnly {
				continue
			}
			switch {
			case promoted.State == ActiveOptimized && p.changedBy.Load() != changedByNone && p.current() != p.State:
				changed = p.set(p.State, changedImplicitly, initiator) || changed
			case promoted.State != ActiveOptimized && p.State == ActiveOptimized && p.current() == ActiveOptimized:
				changed = p.set(promoted.State, changedImplicitly, initiator) || changed
			}
		}
	}
	return changed
}

// restorePorts sets the ports of a target to their configured states, because a path
// through a demoted port has returned. It notifies every nexus. The caller holds lu.mu.
func (lu *LogicalUnit) restorePorts(back *luPort, initiator string) {
	for _, p := range lu.ports[back.target] {
		p.set(p.State, changedImplicitly, initiator)
	}
	for _, itl := range lu.nexuses {
		itl.establish(sense.ASCAsymmetricAccessStateChanged)
	}
	lu.portsRestored = true
}

// setsPorts reports whether the nexus may send SET TARGET PORT GROUPS.
func (i *itlNexus) setsPorts() bool {
	port := i.port.Load()
	return port == nil || !port.implicitOnly
}

// portGroupCommands are the commands of asymmetric logical unit access.
func portGroupCommands() []command {
	return []command{
		{actionTargetPortGroups, Operation{Name: "REPORT TARGET PORT GROUPS",
			Usage:  []byte{opMaintenanceIn, 0xE0 | actionTargetPortGroups, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessAlways, Execute: executeReportTargetPortGroups}},
		{actionTargetPortGroups, Operation{Name: "SET TARGET PORT GROUPS",
			Usage:  []byte{opMaintenanceOut, actionTargetPortGroups, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessWrite, offered: (*itlNexus).setsPorts,
			Prepare: prepareSetTargetPortGroups, Execute: executeSetTargetPortGroups}},
	}
}
