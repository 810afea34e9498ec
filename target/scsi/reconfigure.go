package scsi

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"odx/target/scsi/sense"
)

// Configuration is what a target has, and what can change while it is in use.
type Configuration struct {
	// Units are the logical units by LUN (0 to 16383). Each is at one LUN. The map must
	// not be changed any more.
	Units map[uint16]*LogicalUnit
	// PortGroups and ImplicitOnly are as in TargetConfig. Nexuses of a port group that
	// goes have to be detached.
	PortGroups   []PortGroup
	ImplicitOnly bool
	// Replaced are the LUNs that were another logical unit before (Target.Replaced). The
	// map must not be changed any more.
	Replaced map[uint16]bool
	// Rights returns the rights that an attached nexus has from now on; ok is false if
	// it keeps those that it has. It is called with locks held, and must not block. nil:
	// each keeps its own.
	Rights func(n *Nexus) (r Rights, ok bool)
}

// check completes and checks what does not depend on other targets.
func (c *Configuration) check() (groups []PortGroup, err error) {
	at := make(map[*LogicalUnit]uint16, len(c.Units))
	for lun, lu := range c.Units {
		if lun > maxLUN {
			return nil, fmt.Errorf("LUN %d: maximum is %d", lun, maxLUN)
		}
		if other, twice := at[lu]; twice {
			return nil, fmt.Errorf("LUN %d: already LUN %d of this target", max(lun, other), min(lun, other))
		}
		at[lu] = lun
	}
	return checkPortGroups(c.PortGroups)
}

// Check returns the error that Reconfigure would return.
func (tg *Target) Check(c Configuration) error {
	groups, err := c.check()
	if err != nil {
		return err
	}
	for _, lu := range c.Units {
		if err := lu.checkPorts(tg.name, groups); err != nil {
			return err
		}
	}
	return nil
}

// Reconfigure makes c what the target has. An error means that nothing has changed.
//
// A command that arrives in the meantime finds the logical units of before or those of
// c. A nexus for which a LUN appears, disappears or becomes another logical unit gets
// REPORTED LUNS DATA HAS CHANGED, once (SPC-4 r37 6.33), and INQUIRY DATA HAS CHANGED at a
// LUN that became another logical unit; a LUN that appears begins as after power on
// (SAM-5 6.3.1). ASYMMETRIC ACCESS STATE CHANGED announces other port groups, at each
// logical unit that has them. Nothing else is noticed: commands under way go on, unit
// attentions and reservations stay.
//
// Reconfigure returns the logical units that the target no longer has. One that no target
// has (Served) takes no new command; Drain waits for those that it has.
func (tg *Target) Reconfigure(c Configuration) (left []*LogicalUnit, err error) {
	defer func() { tg.keepPorts(left...) }()
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.reconfigure(c)
}

// reconfigure is Reconfigure. The caller holds tg.mu.
func (tg *Target) reconfigure(c Configuration) (left []*LogicalUnit, err error) {
	if err := tg.Check(c); err != nil {
		return nil, err
	}
	before := tg.units
	tg.units, tg.replaced = c.Units, c.Replaced
	tg.ports, tg.implicitOnly = c.PortGroups, c.ImplicitOnly
	groups, _ := checkPortGroups(c.PortGroups) // Check has passed
	for _, lu := range tg.unitsByLUN() {
		lu.tasks.open()
		lu.setPortGroups(tg, groups)
	}
	for n := range tg.nexuses {
		if c.Rights != nil {
			if r, ok := c.Rights(n); ok {
				n.setRights(r)
			}
		}
		tg.renew(n)
	}
	served := make(map[*LogicalUnit]bool, len(tg.units))
	for _, lu := range tg.units {
		served[lu] = true
	}
	for _, lun := range slices.Sorted(maps.Keys(before)) {
		if lu := before[lun]; !served[lu] {
			lu.dropPortGroups(tg.name)
			left = append(left, lu)
		}
	}
	return left, nil
}

// Readmit gives an attached nexus other rights. It gets the unit attentions of
// Reconfigure for what it sees now. A logical unit that it no longer sees takes no command
// of it: one that waits, for its data or for other commands, ends with LOGICAL UNIT NOT
// SUPPORTED, and one that runs goes on.
func (tg *Target) Readmit(n *Nexus, r Rights) {
	defer tg.keepPorts()
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if _, attached := tg.nexuses[n]; !attached {
		return
	}
	n.setRights(r)
	tg.renew(n)
}

// setRights replaces the rights of the nexus. The caller holds the target's mu.
func (n *Nexus) setRights(r Rights) {
	n.view = r.View
	n.proof.Store(&r.Proof)
}

// viewed yields what a view shows of the logical units of the target: the LUN of the
// nexus, and the logical unit by its LUN in the target. The caller holds tg.mu.
func (tg *Target) viewed(v View) iter.Seq2[uint16, ViewedLU] {
	return func(yield func(uint16, ViewedLU) bool) {
		if v == nil {
			for lun := range tg.units {
				if !yield(lun, ViewedLU{LUN: lun, Replaced: tg.replaced[lun]}) {
					return
				}
			}
			return
		}
		for seen, as := range v {
			if tg.units[as.LUN] != nil && !yield(seen, as) {
				return
			}
		}
	}
}

// renew makes the logical units of an attached nexus those that it is to have. The caller
// holds tg.mu.
func (tg *Target) renew(n *Nexus) {
	before := *n.units.Load()
	units := make(map[uint16]*itlNexus, len(tg.units))
	same := 0
	for seen, as := range tg.viewed(n.view) {
		lu := tg.units[as.LUN]
		if itl := before[seen]; itl != nil && itl.lu == lu {
			same++
			units[seen] = itl
			itl.setReadOnly(as.ReadOnly)
			continue
		}
		units[seen] = tg.appear(n, seen, as, before[seen])
	}
	if same == len(units) && same == len(before) {
		return
	}
	n.inventory = inventory(units)
	for seen, itl := range units {
		if before[seen] != itl {
			itl.establish(sense.ASCReportedLUNsDataChanged) // before a command finds it
		}
	}
	n.units.Store(&units)
	announce(units) // after the list, so that a report of the list of before does not clear it
	for seen, itl := range before {
		if units[seen] != itl {
			itl.stats.Load().addTo(&n.ended)
			tg.disappear(itl)
		}
	}
}

// appear adds a logical unit to a nexus; was is what the nexus had at the LUN, or nil. The
// caller holds tg.mu.
func (tg *Target) appear(n *Nexus, seen uint16, as ViewedLU, was *itlNexus) *itlNexus {
	lu := tg.units[as.LUN]
	if elsewhere := lu.nexus(n); elsewhere != nil {
		lu.detach(elsewhere) // its LUN changes
	}
	itl := lu.attach(n, seen, as, poweredOn)
	if another := tg.findsAnother(n, seen, lu, as.Replaced); another || was != nil && was.lu.ID() != lu.ID() {
		itl.establish(sense.ASCInquiryDataChanged)
	}
	return itl
}

// disappear removes a logical unit from a nexus that goes on. The caller holds tg.mu.
func (tg *Target) disappear(itl *itlNexus) {
	lu := itl.lu
	if lu.nexus(itl.nexus) != itl {
		return // it has another LUN now
	}
	for _, other := range tg.units {
		if other == lu {
			itl.revoked.Store(true)
		}
	}
	lu.detach(itl)
}

// setReadOnly makes the medium write protected for the nexus, or no longer.
func (i *itlNexus) setReadOnly(to bool) {
	if i.readOnly.Swap(to) != to {
		i.establish(sense.ASCModeParametersChanged) // WP of the mode parameter header (SBC-3 6.5.1)
	}
}
