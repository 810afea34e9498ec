package scsi

import "slices"

// knownPorts are the ports that a PERSISTENT RESERVE OUT can speak of without
// naming each.
type knownPorts struct {
	// targets are the ports by which the logical unit is reached.
	targets []*luPort
	// initiators are nexuses of initiator ports that the logical unit knows.
	initiators []NexusID
}

// apply carries out a PERSISTENT RESERVE OUT (SPC-4 r37 5.12). After an error c
// is of no use.
func (c *prChange) apply(r *prOut, ports knownPorts) error {
	switch r.action {
	case prOutRegister:
		return c.applyRegister(r, ports)
	case prOutRegisterAndIgnore:
		return c.registerIgnoring(r, ports)
	}
	own := c.find(c.issuer)
	if own < 0 || c.registrations[own].key != r.key {
		return errReservationConflict
	}
	switch r.action {
	case prOutReserve:
		return c.applyReserve(r)
	case prOutRelease:
		return c.applyRelease(r)
	case prOutClear:
		c.clear()
		c.generation++
		return nil
	case prOutPreempt, prOutPreemptAndAbort:
		return c.applyPreempt(r)
	case prOutRegisterAndMove:
		return c.applyMove(r, ports)
	}
	return InvalidFieldInCDB(1, 4)
}

// applyRegister is REGISTER (SPC-4 r37 5.12.7.2).
func (c *prChange) applyRegister(r *prOut, ports knownPorts) error {
	if c.key(c.issuer) != r.key {
		return errReservationConflict
	}
	if r.specIPT && c.find(c.issuer) >= 0 {
		return InvalidFieldInParameterList(20, 3)
	}
	// At other ports, only what the same command could change there is changed.
	return c.registerAt(r, ports, func(id NexusID) bool { return c.key(id) == r.key })
}

// registerIgnoring is REGISTER AND IGNORE EXISTING KEY.
func (c *prChange) registerIgnoring(r *prOut, ports knownPorts) error {
	return c.registerAt(r, ports, func(NexusID) bool { return true })
}

// registerAt registers, or unregisters where the key is zero, the nexuses that r
// speaks of and that pass.
func (c *prChange) registerAt(r *prOut, ports knownPorts, pass func(NexusID) bool) error {
	initiators := []NexusID{c.issuer}
	if r.actionKey != 0 {
		named, err := c.named(r, ports)
		if err != nil {
			return err
		}
		initiators = append(initiators, named...)
	}
	targets := []NexusID{c.issuer}
	if r.allTGPT {
		for _, p := range ports.targets {
			targets = append(targets, p.portOfTarget())
		}
	}
	done := make(map[NexusID]bool)
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
	c.aptpl = r.aptpl
	c.generation++
	return nil
}

// named returns the nexuses of the initiator ports that SPEC_I_PT names, at the
// target port of the command.
func (c *prChange) named(r *prOut, ports knownPorts) (ids []NexusID, err error) {
	for _, t := range r.transportIDs {
		if t.isid != nil {
			ids = append(ids, t.atPort(c.issuer))
			continue
		}
		// A name alone stands for the ports that are known, and for nothing if
		// there are none.
		found := len(ids)
		for _, known := range ports.initiators {
			if t.matches(known) {
				known.TargetName, known.TargetPortalGroupTag = c.issuer.TargetName, c.issuer.TargetPortalGroupTag
				ids = append(ids, known)
			}
		}
		if len(ids) == found {
			return nil, InvalidFieldInParameterList(28, WholeField)
		}
	}
	return ids, nil
}

// atPort is the nexus of one initiator port with the target port of another nexus.
func (t transportID) atPort(of NexusID) NexusID {
	return NexusID{InitiatorName: t.name, ISID: *t.isid, TargetName: of.TargetName, TargetPortalGroupTag: of.TargetPortalGroupTag}
}

// portOfTarget is the target port of a nexus.
func (p *luPort) portOfTarget() NexusID {
	return NexusID{TargetName: p.target, TargetPortalGroupTag: p.Tag}
}

// moveTo returns the nexus that REGISTER AND MOVE names. ok is false if there is no
// such target port.
func (r *prOut) moveTo(ports knownPorts) (to NexusID, ok bool) {
	i := slices.IndexFunc(ports.targets, func(p *luPort) bool { return p.ID == r.targetPort })
	if i < 0 {
		return NexusID{}, false
	}
	return r.transportIDs[0].atPort(ports.targets[i].portOfTarget()), true
}

// checkType checks SCOPE and TYPE of a command that makes a reservation.
func (r *prOut) checkType() error {
	if r.scope != 0 || !r.kind.valid() {
		return InvalidFieldInCDB(2, WholeField)
	}
	return nil
}

// applyReserve is RESERVE (SPC-4 r37 5.12.9).
func (c *prChange) applyReserve(r *prOut) error {
	if err := r.checkType(); err != nil {
		return err
	}
	if c.kind == 0 {
		c.reserve(r.kind)
		return nil
	}
	if !c.isHolder(c.issuer) || c.kind != r.kind {
		return errReservationConflict
	}
	return nil
}

// applyRelease is RELEASE (SPC-4 r37 5.12.11.2.2).
func (c *prChange) applyRelease(r *prOut) error {
	if !c.isHolder(c.issuer) {
		return nil
	}
	if r.scope != 0 || r.kind != c.kind {
		return NewSense(KeyIllegalRequest, ASCInvalidReleaseOfPersistentReservation)
	}
	c.release()
	return nil
}

// applyPreempt is PREEMPT and, but for the tasks, PREEMPT AND ABORT (SPC-4 r37
// 5.12.11.2.4 to 5.12.11.2.6).
func (c *prChange) applyPreempt(r *prOut) error {
	shared := c.kind.allRegistrants()
	switch {
	case r.actionKey == 0 && !shared:
		return InvalidFieldInParameterList(8, WholeField)
	case r.actionKey == 0, c.kind != 0 && !shared && c.key(c.holder) == r.actionKey:
		if err := r.checkType(); err != nil {
			return err
		}
		c.takeOver(r)
	case !c.hasKey(r.actionKey):
		return errReservationConflict
	default:
		c.remove(func(g registration) bool { return g.key == r.actionKey })
		if shared && len(c.registrations) == 0 {
			c.release()
		}
	}
	c.generation++
	return nil
}

// takeOver preempts the reservation: its holders lose their registrations, and
// those who keep theirs are told if other rules hold from now on.
func (c *prChange) takeOver(r *prOut) {
	c.remove(func(g registration) bool {
		return g.nexus != c.issuer && (r.actionKey == 0 || g.key == r.actionKey)
	})
	if c.kind != r.kind {
		c.tellRegistered(ASCReservationsReleased)
	}
	c.reserve(r.kind)
}

// applyMove is REGISTER AND MOVE (SPC-4 r37 5.12.8).
func (c *prChange) applyMove(r *prOut, ports knownPorts) error {
	to, ok := r.moveTo(ports)
	switch {
	case c.kind.allRegistrants():
		return errReservationConflict
	case !c.isHolder(c.issuer):
		return InvalidFieldInCDB(1, 4)
	case r.actionKey == 0:
		return InvalidFieldInParameterList(8, WholeField)
	case !ok:
		return InvalidFieldInParameterList(18, WholeField)
	case to == c.issuer:
		return InvalidFieldInParameterList(24, WholeField)
	}
	if err := c.register(to, r.actionKey); err != nil {
		return err
	}
	c.holder = to
	if r.unreg {
		c.unregister(c.issuer)
	}
	c.aptpl = r.aptpl
	c.generation++
	return nil
}
