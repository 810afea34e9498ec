package scsi

import (
	"context"
	"encoding/binary"
)

// States that target port groups can be in, as the descriptors tell them: any
// but transitioning, which a change of state never stays in here.
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
		return InvalidFieldInCDB(1, 7)
	}
	d := make([]byte, header)
	if header > 4 {
		d[4] = extendedHeader << 4 // IMPLICIT TRANSITION TIME stays 0: none is promised
	}
	for _, p := range t.LU.portsOf(t.Nexus) {
		d = p.appendDescriptor(d)
	}
	binary.BigEndian.PutUint32(d, uint32(len(d)-4))
	t.SetDataIn(d, binary.BigEndian.Uint32(cdb[6:]))
	return nil
}

// appendDescriptor appends the target port group descriptor.
func (p *luPort) appendDescriptor(d []byte) []byte {
	const pref, changedByCommand = 0x80, 0x01
	first, status := byte(p.now()), byte(0)
	if p.Preferred {
		first |= pref
	}
	if p.explicit.Load() {
		status = changedByCommand
	}
	d = append(d, first, supportedPortStates)
	d = binary.BigEndian.AppendUint16(d, p.Tag)
	d = append(d, 0, status, 0, 1, 0, 0)
	return binary.BigEndian.AppendUint16(d, p.Tag)
}

// prepareSetTargetPortGroups bounds the parameter list.
func prepareSetTargetPortGroups(t *Task) error {
	n := binary.BigEndian.Uint32(t.CDB()[6:])
	if n > maxSetPortGroupsList || n != 0 && n < 4 {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	t.Wanted = n
	return nil
}

// executeSetTargetPortGroups is SET TARGET PORT GROUPS (SPC-4 r37 6.45). All of
// the list is checked before anything changes.
func executeSetTargetPortGroups(_ context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list)%4 != 0 {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	ports := t.LU.portsOf(t.Nexus)
	wanted := make(map[*luPort]PortState)
	for at := 4; at < len(list); at += 4 {
		state := PortState(list[at] & 0x0F)
		if !state.settable() {
			return InvalidFieldInParameterList(at, 3)
		}
		port := findPort(ports, binary.BigEndian.Uint16(list[at+2:]))
		if port == nil {
			return InvalidFieldInParameterList(at+2, WholeField)
		}
		wanted[port] = state
	}
	changed := false
	for port, state := range wanted {
		port.explicit.Store(true)
		changed = PortState(port.state.Swap(uint32(state))) != state || changed
	}
	if changed {
		t.LU.establish(ASCAsymmetricAccessStateChanged, t.Nexus)
	}
	return nil
}

// findPort returns the port of a tag, nil when there is none.
func findPort(ports []*luPort, tag uint16) *luPort {
	for _, p := range ports {
		if p.Tag == tag {
			return p
		}
	}
	return nil
}

// SetPortState changes the state of a target port group for the logical unit
// without an initiator's asking (implicit asymmetric access), and tells every
// nexus. It reports whether the target has such a group.
func (lu *LogicalUnit) SetPortState(target string, tag uint16, state PortState) bool {
	lu.mu.Lock()
	port := findPort(lu.ports[target], tag)
	lu.mu.Unlock()
	if port == nil || !state.settable() {
		return false
	}
	port.explicit.Store(false)
	if PortState(port.state.Swap(uint32(state))) != state {
		lu.establish(ASCAsymmetricAccessStateChanged, nil)
	}
	return true
}

// portGroupCommands are the commands of asymmetric logical unit access.
func portGroupCommands() []command {
	return []command{
		{actionTargetPortGroups, Operation{Name: "REPORT TARGET PORT GROUPS",
			Usage:  []byte{opMaintenanceIn, 0xE0 | actionTargetPortGroups, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessAlways, Execute: executeReportTargetPortGroups}},
		{actionTargetPortGroups, Operation{Name: "SET TARGET PORT GROUPS",
			Usage:  []byte{opMaintenanceOut, actionTargetPortGroups, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessWrite, Prepare: prepareSetTargetPortGroups, Execute: executeSetTargetPortGroups}},
	}
}
