package scsi

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/target/scsi/sense"
)

// PortState is an asymmetric access state (SPC-4 r37 5.15.2.4).
type PortState byte

// Asymmetric access states.
const (
	ActiveOptimized    PortState = 0x0
	ActiveNonOptimized PortState = 0x1
	Standby            PortState = 0x2
	Unavailable        PortState = 0x3
	Transitioning      PortState = 0xF
)

// PortGroup is a target port group with a single target port, which is an iSCSI target
// portal group.
type PortGroup struct {
	// Tag is the target portal group tag, not zero.
	Tag uint16
	// ID is the identifier of the target port group, and the relative identifier of its
	// port. A logical unit of several targets is one device with the ports of all of
	// them, so their IDs must differ. 0 means Tag.
	ID uint16
	// State is the initial state, to which implicit changes return; SET TARGET PORT
	// GROUPS changes it.
	State PortState
	// Preferred asks initiators to prefer the group (PREF).
	Preferred bool
}

// checkPortGroups completes and checks the groups of a target.
func checkPortGroups(groups []PortGroup) ([]PortGroup, error) {
	if len(groups) == 0 {
		return []PortGroup{{Tag: 1, ID: 1}}, nil
	}
	groups = slices.Clone(groups)
	for i := range groups {
		g := &groups[i]
		g.ID = cmp.Or(g.ID, g.Tag)
		if g.Tag == 0 || slices.ContainsFunc(groups[:i], func(o PortGroup) bool { return o.Tag == g.Tag }) {
			return nil, fmt.Errorf("portal group tag %d: must be 1 to 65535 and unique", g.Tag)
		}
		if !g.State.settable() {
			return nil, fmt.Errorf("portal group %d: no asymmetric access state %d", g.Tag, g.State)
		}
	}
	return groups, nil
}

// settable reports whether a logical unit can stay in the state.
func (s PortState) settable() bool { return s <= Unavailable }

// StatusCode of a target port group descriptor (SPC-4 r37 table 306): what has
// changed the state last.
const (
	changedByNone     = 0
	changedByCommand  = 1
	changedImplicitly = 2
)

// luPort is a target port group of a logical unit, which has its own state.
type luPort struct {
	PortGroup
	target string
	// implicitOnly: initiators cannot change the state.
	implicitOnly bool
	log          *logrus.Entry // of the target

	state     atomic.Uint32 // a PortState; changed with the logical unit's mu held
	changedBy atomic.Uint32 // the StatusCode
}

// begin sets the state to the configured one, or to the one that initiators have set
// since the last loss of power.
func (p *luPort) begin(kept []keptPort) {
	p.state.Store(uint32(p.State))
	for _, k := range kept {
		if k.Target == p.target && k.ID == p.ID && k.Configured == p.State && !p.implicitOnly {
			p.state.Store(uint32(k.State))
			p.changedBy.Store(k.ChangedBy)
		}
	}
}

// follow takes over the state of the port that it replaces, unless the configuration has
// another state now.
func (p *luPort) follow(before *luPort) {
	p.state.Store(uint32(p.State))
	if before.State == p.State && !p.implicitOnly {
		p.state.Store(before.state.Load())
		p.changedBy.Store(before.changedBy.Load())
	}
}

func (p *luPort) current() PortState { return PortState(p.state.Load()) }

// demoted reports whether the state is worse than configured because an initiator has
// optimized another port.
func (p *luPort) demoted() bool {
	return p.changedBy.Load() == changedImplicitly && p.current() > p.State
}

// set changes the state and logs it. It reports whether the state has changed. The
// caller holds the logical unit's mu.
func (p *luPort) set(state PortState, by uint32, initiator string) bool {
	old := PortState(p.state.Swap(uint32(state)))
	p.changedBy.Store(by)
	if old == state {
		return false
	}
	p.log.WithFields(logrus.Fields{"portal_group": p.Tag, "target_port_group": p.ID, "from": old.String(), "to": state.String(),
		"initiator": initiator, "implicit": by != changedByCommand}).Info("path state changed")
	return true
}

// String returns the state in the words of the configuration.
func (s PortState) String() string {
	switch s {
	case ActiveOptimized:
		return "optimized"
	case ActiveNonOptimized:
		return "nonoptimized"
	case Standby:
		return "standby"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("state %Xh", byte(s))
}

// checkPorts returns an error if the logical unit has a port group of another target with
// the ID of one of groups.
func (lu *LogicalUnit) checkPorts(target string, groups []PortGroup) error {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for _, g := range groups {
		for _, other := range lu.allPorts() {
			if other.ID == g.ID && other.target != target {
				return fmt.Errorf("portal group %d: target port group %d already belongs to target %s", g.Tag, g.ID, other.target)
			}
		}
	}
	return nil
}

// setPortGroups makes groups the port groups by which a target has the logical unit. One
// that it had before keeps its state, unless its configured state changes. Nexuses are
// notified of the difference.
func (lu *LogicalUnit) setPortGroups(tg *Target, groups []PortGroup) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	before, had := lu.ports[tg.name]
	ports := make([]*luPort, len(groups))
	changed := len(groups) != len(before)
	for i, g := range groups {
		k := slices.IndexFunc(before, func(p *luPort) bool { return p.Tag == g.Tag && p.ID == g.ID })
		if k >= 0 && before[k].PortGroup == g && before[k].implicitOnly == tg.implicitOnly {
			ports[i] = before[k]
			continue
		}
		changed = true
		ports[i] = &luPort{PortGroup: g, target: tg.name, implicitOnly: tg.implicitOnly, log: tg.log}
		if k >= 0 {
			ports[i].follow(before[k])
		} else {
			ports[i].begin(lu.keptPorts)
		}
	}
	if had && !changed {
		return
	}
	if lu.ports == nil {
		lu.ports = make(map[string][]*luPort)
	}
	lu.ports[tg.name] = ports
	lu.portsChanged(tg.name, before)
}

// dropPortGroups removes the port groups by which a target had the logical unit.
func (lu *LogicalUnit) dropPortGroups(target string) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	before := lu.ports[target]
	delete(lu.ports, target)
	lu.portsChanged(target, before)
}

// portsChanged follows a change of the port groups of a target from before: nexuses are
// notified, and states that are gone are not stored any longer. The caller holds lu.mu.
func (lu *LogicalUnit) portsChanged(target string, before []*luPort) {
	// A group that comes back begins as configured.
	lu.keptPorts = slices.DeleteFunc(lu.keptPorts, func(k keptPort) bool { return k.Target == target })
	for _, p := range before {
		lu.portsRestored = lu.portsRestored || p.changedBy.Load() != changedByNone && !slices.Contains(lu.ports[target], p)
	}
	for n, itl := range lu.nexuses {
		was, is := itl.port.Load(), lu.portOf(n.ID)
		itl.port.Store(is)
		if was != nil && is != nil && (was.ID != is.ID || was.implicitOnly != is.implicitOnly) {
			itl.establish(sense.ASCInquiryDataChanged) // page 83h; TPGS
		}
		itl.establish(sense.ASCAsymmetricAccessStateChanged)
	}
}

// Served reports whether a target has the logical unit.
func (lu *LogicalUnit) Served() bool {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	return len(lu.ports) > 0
}

// allPorts returns the ports of the logical unit in all targets, by ID. The caller
// holds lu.mu.
func (lu *LogicalUnit) allPorts() []*luPort {
	var all []*luPort
	for _, ports := range lu.ports {
		all = append(all, ports...)
	}
	slices.SortFunc(all, func(a, b *luPort) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// portOf returns the target port of id, or nil if the target has no such port. The
// caller holds lu.mu.
func (lu *LogicalUnit) portOf(id NexusID) *luPort {
	i := slices.IndexFunc(lu.ports[id.TargetName], func(p *luPort) bool { return p.Tag == id.TargetPortalGroupTag })
	if i < 0 {
		return nil
	}
	return lu.ports[id.TargetName][i]
}

// relativePort returns the RELATIVE TARGET PORT IDENTIFIER of the target port of id; 0,
// which is reserved, if the port no longer exists.
func (lu *LogicalUnit) relativePort(id NexusID) uint16 {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	if p := lu.portOf(id); p != nil {
		return p.ID
	}
	return 0
}

// States other than active in which a command still runs.
const (
	inStandby     = 1 << iota // allowed in standby
	inUnavailable             // allowed while unavailable
)

// reachable lists the commands, by operation code, that run in the states that are not
// active (SPC-4 r37 5.15.2.4.4 and 5.15.2.4.5), and in addition READ CAPACITY, without
// which a host creates no device for a path that it finds in standby. For 9Eh, A3h and
// A4h, see reachableAction.
var reachable = [256]byte{
	opRequestSense: inStandby | inUnavailable,
	opInquiry:      inStandby | inUnavailable,
	opReportLUNs:   inStandby | inUnavailable,
	0x15:           inStandby,                 // MODE SELECT(6)
	0x1A:           inStandby,                 // MODE SENSE(6)
	0x1C:           inStandby,                 // RECEIVE DIAGNOSTIC RESULTS
	0x1D:           inStandby,                 // SEND DIAGNOSTIC
	0x25:           inStandby,                 // READ CAPACITY(10)
	0x3B:           inStandby | inUnavailable, // WRITE BUFFER
	0x3C:           inStandby | inUnavailable, // READ BUFFER
	0x4C:           inStandby,                 // LOG SELECT
	0x4D:           inStandby,                 // LOG SENSE
	0x55:           inStandby,                 // MODE SELECT(10)
	0x5A:           inStandby,                 // MODE SENSE(10)
	0x5E:           inStandby,                 // PERSISTENT RESERVE IN
	0x5F:           inStandby,                 // PERSISTENT RESERVE OUT
}

// Service actions that report or change access states.
const (
	opServiceActionIn = 0x9E
	opMaintenanceIn   = 0xA3
	opMaintenanceOut  = 0xA4

	actionReadCapacity16   = 0x10
	actionTargetPortGroups = 0x0A // REPORT and SET TARGET PORT GROUPS
)

// reachableAction is reachable for operation codes with service actions.
func reachableAction(code, action byte) byte {
	switch {
	case code == opServiceActionIn && action == actionReadCapacity16:
		return inStandby
	case (code == opMaintenanceIn || code == opMaintenanceOut) && action == actionTargetPortGroups:
		return inStandby | inUnavailable
	}
	return reachable[code]
}

// reach refuses a command that the port of the nexus does not accept in its asymmetric
// access state. An active port costs two atomic loads.
func (i *itlNexus) reach(cdb []byte) error {
	if err := i.lu.reachAway(cdb); err != nil {
		return err
	}
	port := i.port.Load()
	if port == nil {
		return nil
	}
	state := port.current()
	if state <= ActiveNonOptimized {
		return nil
	}
	allowed := byte(0)
	if len(cdb) > 1 {
		allowed = reachableAction(cdb[0], cdb[1]&0x1F)
	}
	switch {
	case state == Standby && allowed&inStandby == 0:
		return sense.New(sense.KeyNotReady, sense.ASCPortInStandbyState)
	case state == Unavailable && allowed&inUnavailable == 0:
		return sense.New(sense.KeyNotReady, sense.ASCPortInUnavailableState)
	}
	return nil
}
