package scsi

import "odx/target/scsi/sense"

// View is the part of a target that one I_T nexus sees: logical units by the LUN under
// which the initiator addresses them. A logical unit outside of it does not exist for
// the initiator; each may occur once. The nil View includes everything, under the
// target's own LUNs.
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

// Rights are the permissions of an I_T nexus and their basis.
type Rights struct {
	View View
	// Proof identifies the credentials that the initiator has proven: nexuses with the
	// same initiator name and Proof have the same initiator. It is empty if the target
	// requires none.
	Proof string
}

// writeProtected returns the sense data that a write to the medium by this nexus
// currently ends with, or nil.
func (i *itlNexus) writeProtected() error {
	if i.readOnly.Load() {
		return sense.New(sense.KeyDataProtect, sense.ASCWriteProtected)
	}
	return i.lu.WriteProtected()
}

// NexusFor returns an I_T nexus, perhaps of another target, through which the initiator
// of n can address the logical unit, or nil. The initiator name is not sufficient,
// because initiators choose it: the other nexus must have the same proof, or a target
// that requires none.
func (lu *LogicalUnit) NexusFor(n *Nexus) *Nexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	if lu.nexuses[n] != nil {
		return n
	}
	var found *Nexus
	for other, itl := range lu.nexuses {
		if other.ID.InitiatorName != n.ID.InitiatorName || other.requiresProof() && !other.provenLike(n) {
			continue
		}
		if found = other; !itl.readOnly.Load() {
			break // the most permissive
		}
	}
	return found
}

// WriteProtected returns the sense data that a write by the nexus to the medium of a
// logical unit currently ends with, or nil. A logical unit that the nexus does not see
// is write protected.
func (n *Nexus) WriteProtected(lu *LogicalUnit) error {
	itl := lu.nexus(n)
	if itl == nil {
		return sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	}
	return itl.writeProtected()
}

// nexus returns the I_T_L nexus of n, or nil.
func (lu *LogicalUnit) nexus(n *Nexus) *itlNexus {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	return lu.nexuses[n]
}
