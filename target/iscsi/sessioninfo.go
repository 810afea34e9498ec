package iscsi

import (
	"encoding/hex"
	"time"

	"odx/target/scsi"
)

// SessionInfo describes a session for display.
type SessionInfo struct {
	InitiatorName  string
	InitiatorAlias string
	// ISID is in hexadecimal, as in open-iscsi.
	ISID string
	TSIH uint16
	// TargetName is empty for a discovery session.
	TargetName string
	// PortalGroup is the tag of the portal group.
	PortalGroup uint16
	// User is the CHAP name that the initiator has proven, or "".
	User string
	// View is the view of the session. If nil, it has all LUNs.
	View scsi.View
	// Keys are those of the whole session.
	Keys Keys
	// Connections are in the order of their logins.
	Connections []ConnectionInfo
	// Commands is the number of outstanding commands, Detached the number of aborted
	// commands that have not returned from the store.
	Commands, Detached int
	// Total is the traffic of the session in this process, LastMinute that of about the
	// last minute.
	Total, LastMinute Traffic
	Since             time.Time
	// LoggingOut: the initiator was asked to log out from all connections.
	LoggingOut bool
}

// Keys are the negotiated keys of a session (RFC 7143 13). Lengths are in bytes, times in
// seconds.
type Keys struct {
	MaxConnections                       int
	InitialR2T, ImmediateData            bool
	MaxBurstLength, FirstBurstLength     int
	MaxOutstandingR2T                    int
	DefaultTime2Wait, DefaultTime2Retain int
	ErrorRecoveryLevel                   int
	// QueueDepth is the number of commands that may be outstanding, which is not negotiated.
	QueueDepth int
}

// ConnectionInfo describes a connection of a session.
type ConnectionInfo struct {
	CID uint16
	// Remote is the address of the initiator, Local that of the portal.
	Remote, Local string
	// HeaderDigest and DataDigest: CRC32C in both directions.
	HeaderDigest, DataDigest bool
	// InitiatorSegment and TargetSegment are the MaxRecvDataSegmentLength of both sides.
	InitiatorSegment, TargetSegment int
	// LoggingOut: the initiator was asked to log out from the connection.
	LoggingOut bool
}

// Sessions returns the sessions, the oldest first.
func (srv *Server) Sessions() []SessionInfo {
	sessions := srv.allSessions()
	sortSessions(sessions)
	list := make([]SessionInfo, 0, len(sessions))
	now := time.Now()
	for _, s := range sessions {
		list = append(list, s.info(now))
	}
	return list
}

func (s *session) info(now time.Time) SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.params
	i := SessionInfo{
		InitiatorName:  s.id.InitiatorName,
		InitiatorAlias: p.initiatorAlias,
		ISID:           hex.EncodeToString(s.id.ISID[:]),
		TSIH:           s.tsih,
		TargetName:     s.id.TargetName,
		PortalGroup:    s.group,
		User:           s.user,
		View:           s.view,
		Keys: Keys{
			MaxConnections: int(p.maxConnections), InitialR2T: p.initialR2T, ImmediateData: p.immediateData,
			MaxBurstLength: int(p.maxBurst), FirstBurstLength: int(p.firstBurst), MaxOutstandingR2T: int(p.maxOutstandingR2T),
			DefaultTime2Wait: int(p.time2Wait), DefaultTime2Retain: int(p.time2Retain), ErrorRecoveryLevel: int(p.errorRecoveryLevel),
			QueueDepth: s.depth,
		},
		Commands:   len(s.tasks),
		Detached:   s.detached,
		Total:      s.meter.all(now),
		LastMinute: s.meter.lastMinute(now),
		Since:      s.since,
		LoggingOut: len(s.conns) > 0 && s.leaving(),
	}
	for _, c := range s.conns {
		i.Connections = append(i.Connections, c.info())
	}
	return i
}

// info describes the connection. The caller holds the session's mu.
func (c *conn) info() ConnectionInfo {
	p := &c.params
	return ConnectionInfo{
		CID: c.cid, Remote: c.nc.RemoteAddr().String(), Local: c.nc.LocalAddr().String(),
		HeaderDigest: p.headerDigest, DataDigest: p.dataDigest,
		InitiatorSegment: int(p.peerMaxRecv), TargetSegment: int(p.maxRecv),
		LoggingOut: c.leaving.Load(),
	}
}
