package scsi

// View is what one I_T nexus sees of a target: logical units by the LUN at which
// the initiator finds them. A logical unit that is not in it does not exist for
// the initiator; each may be in it once. The nil View shows everything, under
// the target's own LUNs.
type View map[uint16]ViewedLU

// ViewedLU is a logical unit as a View shows it.
type ViewedLU struct {
	// LUN is where AddLU has put the logical unit.
	LUN uint16
	// ReadOnly makes the medium write protected for this nexus.
	ReadOnly bool
	// Replaced: before this start, or an earlier one, another logical unit was here.
	Replaced bool
}

// Rights are what an I_T nexus may do, and by what right.
type Rights struct {
	View View
	// Proof stands for what the target has had the initiator prove: nexuses of
	// one initiator name and Proof have the same initiator behind them. It is
	// empty where the target asks for nothing.
	Proof string
}

// find returns at which LUN the nexus finds what AddLU has put at lun.
func (v View) find(lun uint16) (seen uint16, lu ViewedLU, ok bool) {
	if v == nil {
		return lun, ViewedLU{LUN: lun}, true
	}
	for seen, lu := range v {
		if lu.LUN == lun {
			return seen, lu, true
		}
	}
	return 0, ViewedLU{}, false
}

// writeProtected returns the sense data that a write to the medium by this nexus
// ends with now, nil when writing is allowed.
func (i *itlNexus) writeProtected() error {
	if i.readOnly {
		return NewSense(KeyDataProtect, ASCWriteProtected)
	}
	return i.lu.WriteProtected()
}

// NexusFor returns an I_T nexus through which whoever is behind n can address
// the logical unit, perhaps at another target, nil when there is none. A name is
// not enough for that, because initiators choose their own: the other nexus must
// have come about by the same proof, or at a target that asks for none.
func (lu *LogicalUnit) NexusFor(n *Nexus) *Nexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	if lu.nexuses[n] != nil {
		return n
	}
	var found *Nexus
	for other, itl := range lu.nexuses {
		if other.ID.InitiatorName != n.ID.InitiatorName || other.proof != "" && !other.provenLike(n) {
			continue
		}
		if found = other; !itl.readOnly {
			break // it may do the most
		}
	}
	return found
}

// WriteProtected returns the sense data that a write by the nexus to the medium
// of a logical unit ends with now, nil when writing is allowed. To a logical
// unit that the nexus does not see nothing may be written.
func (n *Nexus) WriteProtected(lu *LogicalUnit) error {
	itl := lu.nexus(n)
	if itl == nil {
		return NewSense(KeyIllegalRequest, ASCLogicalUnitNotSupported)
	}
	return itl.writeProtected()
}

// nexus returns the I_T_L nexus of n, nil when there is none.
func (lu *LogicalUnit) nexus(n *Nexus) *itlNexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	return lu.nexuses[n]
}
