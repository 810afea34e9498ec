package scsi

// NexusID names an I_T nexus: initiator port and target port (RFC 7143 4.4.1:
// the initiator port is the initiator name and the ISID, the target port the
// target name and the portal group tag).
type NexusID struct {
	InitiatorName string
	ISID          [6]byte
	TargetName    string
	// TargetPortalGroupTag is also the relative target port identifier.
	TargetPortalGroupTag uint16
}

// Nexus is an I_T nexus while its session lives. What a logical unit keeps for
// it (unit attentions, reservations, copy list identifiers) is keyed by the
// pointer.
type Nexus struct {
	ID NexusID
}
