// Package nexus identifies I_T nexuses and their SCSI ports (SAM-5 4.6, RFC 7143 4.4.1,
// SPC-4 r37 7.6.4).
package nexus

// ID identifies an I_T nexus by initiator port and target port (RFC 7143 4.4.1: the
// initiator port is the initiator name and the ISID, the target port the target name
// and the portal group tag).
type ID struct {
	InitiatorName string
	ISID          [6]byte
	TargetName    string

	TargetPortalGroupTag uint16
}

// ProtocolISCSI is the PROTOCOL IDENTIFIER of iSCSI (SPC-4 r37 7.6.1).
const ProtocolISCSI = 0x5
