package reserve

import (
	"odx/target/scsi/nexus"
	"odx/target/scsi/sense"
)

import "slices"

// knownPorts are the ports that a PERSISTENT RESERVE OUT can affect without naming
// each.
type knownPorts struct {
	// targets are the ports by which the logical unit is reached.
	targets []Port
	// initiators are nexuses of initiator ports that the logical unit knows.
	initiators []nexus.ID
}

// apply carries out a PERSISTENT RESERVE OUT (SPC-4 r37 5.12). After an error c is
// invalid.
func (c *change) apply(r *command, ports knownPorts) error {
	switch r.action {
	case Register:
		return c.applyRegister(r, ports)
	case RegisterAndIgnore:
		return c.registerIgnoring(r, ports)
	}
	own := c.next.find(c.issuer)
	if own < 0 || c.next.registrations[own].key != r.key {
		return ErrConflict
	}
	switch r.action {
	case Reserve:
		return c.applyReserve(r)
	case Release:
		return c.applyRelease(r)
	case Clear:
		c.clear()
		c.next.generation++
		return nil
	case Preempt, PreemptAndAbort:
		return c.applyPreempt(r)
	case RegisterAndMove:
		return c.applyMove(r, ports)
	}
	return sense.InvalidFieldInCDB(1, 4)
}

// applyRegister is REGISTER (SPC-4 r37 5.12.7.2).
func (c *change) applyRegister(r *command, ports knownPorts) error {
	if c.next.key(c.issuer) != r.key {
		return ErrConflict
	}
	if r.specIPT && c.next.find(c.issuer) >= 0 {
		return sense.InvalidFieldInParameterList(20, 3)
	}
	// At other ports, registrations change only where the same command could change
	// them.
	return c.registerAt(r, ports, func(id nexus.ID) bool { return c.next.key(id) == r.key })
}

// registerIgnoring is REGISTER AND IGNORE EXISTING KEY.
func (c *change) registerIgnoring(r *command, ports knownPorts) error {
	return c.registerAt(r, ports, func(nexus.ID) bool { return true })
}

// registerAt registers, or unregisters if the key is zero, the nexuses of r that pass.
func (c *change) registerAt(r *command, ports knownPorts, pass func(nexus.ID) bool) error {
	initiators := []nexus.ID{c.issuer}
	if r.actionKey != 0 {
		named, err := c.named(r, ports)
		if err != nil {
			return err
		}
		initiators = append(initiators, named...)
	}
	targets := []nexus.ID{c.issuer}
	if r.allTGPT {
		for _, p := range ports.targets {
			targets = append(targets, p.nexus())
		}
	}
	done := make(map[nexus.ID]bool)
	for _, id := range initiators {
		for _, at := range targets {
			id.TargetName, id.TargetPortalGroupTag = at.TargetName, at.TargetPortalGroupTag
			if done[id] || !pass(id) {
				continue
			}
			done[id] = true
			if r.actionKey == 0 {
				c.unregister(id)
			} else if err := c.register(id, r.actionKey); err != nil {
				return err
			}
		}
	}
	c.next.aptpl = r.aptpl
	c.next.generation++
	return nil
}

// named returns the nexuses of the initiator ports in SPEC_I_PT, at the target port of
// the command.
func (c *change) named(r *command, ports knownPorts) (ids []nexus.ID, err error) {
	for _, t := range r.transportIDs {
		if t.ISID != nil {
			ids = append(ids, t.AtPort(c.issuer))
			continue
		}
		// A name alone stands for the known ports, and for none if there are none.
		found := len(ids)
		for _, known := range ports.initiators {
			if t.Matches(known) {
				known.TargetName, known.TargetPortalGroupTag = c.issuer.TargetName, c.issuer.TargetPortalGroupTag
				ids = append(ids, known)
			}
		}
		if len(ids) == found {
			return nil, sense.InvalidFieldInParameterList(28, sense.WholeField)
		}
	}
	return ids, nil
}

// nexus returns a nexus of the target port without an initiator port.
func (p *Port) nexus() nexus.ID {
	return nexus.ID{TargetName: p.Target, TargetPortalGroupTag: p.Tag}
}

// moveTo returns the nexus of REGISTER AND MOVE. ok is false if the target port does
// not exist.
func (r *command) moveTo(ports knownPorts) (to nexus.ID, ok bool) {
	i := slices.IndexFunc(ports.targets, func(p Port) bool { return p.ID == r.targetPort })
	if i < 0 {
		return nexus.ID{}, false
	}
	return r.transportIDs[0].AtPort(ports.targets[i].nexus()), true
}

// checkType checks SCOPE and TYPE of a command that creates a reservation.
func (r *command) checkType() error {
	if r.scope != 0 || !r.kind.valid() {
		return sense.InvalidFieldInCDB(2, sense.WholeField)
	}
	return nil
}

// applyReserve is RESERVE (SPC-4 r37 5.12.9).
func (c *change) applyReserve(r *command) error {
	if err := r.checkType(); err != nil {
		return err
	}
	if c.next.kind == 0 {
		c.reserve(r.kind)
		return nil
	}
	if !c.next.isHolder(c.issuer) || c.next.kind != r.kind {
		return ErrConflict
	}
	return nil
}

// applyRelease is RELEASE (SPC-4 r37 5.12.11.2.2).
func (c *change) applyRelease(r *command) error {
	if !c.next.isHolder(c.issuer) {
		return nil
	}
	if r.scope != 0 || r.kind != c.next.kind {
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidReleaseOfPersistentReservation)
	}
	c.release()
	return nil
}

// applyPreempt is PREEMPT, and PREEMPT AND ABORT except for the tasks (SPC-4 r37
// 5.12.11.2.4 to 5.12.11.2.6).
func (c *change) applyPreempt(r *command) error {
	shared := c.next.kind.allRegistrants()
	switch {
	case r.actionKey == 0 && !shared:
		return sense.InvalidFieldInParameterList(8, sense.WholeField)
	case r.actionKey == 0, c.next.kind != 0 && !shared && c.next.key(c.next.holder) == r.actionKey:
		if err := r.checkType(); err != nil {
			return err
		}
		c.takeOver(r)
	case !c.next.hasKey(r.actionKey):
		return ErrConflict
	default:
		c.remove(func(g registration) bool { return g.key == r.actionKey })
		if shared && len(c.next.registrations) == 0 {
			c.release()
		}
	}
	c.next.generation++
	return nil
}

// takeOver preempts the reservation: its holders lose their registrations, and the
// remaining registrants are notified if other rules apply from now on.
func (c *change) takeOver(r *command) {
	c.remove(func(g registration) bool {
		return g.nexus != c.issuer && (r.actionKey == 0 || g.key == r.actionKey)
	})
	if c.next.kind != r.kind {
		c.notifyRegistered(sense.ASCReservationsReleased)
	}
	c.reserve(r.kind)
}

// applyMove is REGISTER AND MOVE (SPC-4 r37 5.12.8).
func (c *change) applyMove(r *command, ports knownPorts) error {
	to, ok := r.moveTo(ports)
	switch {
	case c.next.kind.allRegistrants():
		return ErrConflict
	case !c.next.isHolder(c.issuer):
		return sense.InvalidFieldInCDB(1, 4)
	case r.actionKey == 0:
		return sense.InvalidFieldInParameterList(8, sense.WholeField)
	case !ok:
		return sense.InvalidFieldInParameterList(18, sense.WholeField)
	case to == c.issuer:
		return sense.InvalidFieldInParameterList(24, sense.WholeField)
	}
	if err := c.register(to, r.actionKey); err != nil {
		return err
	}
	c.next.holder = to
	if r.unreg {
		c.unregister(c.issuer)
	}
	c.next.aptpl = r.aptpl
	c.next.generation++
	return nil
}
