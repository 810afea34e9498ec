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

// Sees reports whether the nexus can address a logical unit. Who handles
// commands that name other logical units than the one addressed, as third-party
// copies do, asks this first.
func (n *Nexus) Sees(lu *LogicalUnit) bool { return lu.nexus(n) != nil }

// NexusOf returns an I_T nexus through which the initiator of that name can
// address the logical unit, nil when there is none.
func (lu *LogicalUnit) NexusOf(initiator string) *Nexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for n := range lu.nexuses {
		if n.ID.InitiatorName == initiator {
			return n
		}
	}
	return nil
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
