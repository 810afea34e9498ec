package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// StatusV1 returns the JSON of the server's status.
func StatusV1(s admin.Status) v1.Status {
	return v1.Status{
		Portals:        s.Portals,
		MissingPortals: each(func(p admin.MissingPortal) v1.MissingPortal { return v1.MissingPortal(p) })(s.MissingPortals),
		Standbys:       s.Standbys,
		PID:            s.PID, HandoversFailed: s.HandoversFailed, HandoverError: s.HandoverError,
		AuditProblem: s.AuditProblem, AuditLost: s.AuditLost,
		LUNs:       each(func(l admin.LUNStatus) v1.LUNStatus { return v1.LUNStatus(l) })(s.LUNs),
		Sessions:   each(SessionV1)(s.Sessions),
		Damage:     each(damagedV1)(s.Damage),
		MoreDamage: s.MoreDamage,
	}
}

func statusOf(s v1.Status) admin.Status {
	return admin.Status{
		Portals:        s.Portals,
		MissingPortals: each(func(p v1.MissingPortal) admin.MissingPortal { return admin.MissingPortal(p) })(s.MissingPortals),
		Standbys:       s.Standbys,
		PID:            s.PID, HandoversFailed: s.HandoversFailed, HandoverError: s.HandoverError,
		AuditProblem: s.AuditProblem, AuditLost: s.AuditLost,
		LUNs:       each(func(l v1.LUNStatus) admin.LUNStatus { return admin.LUNStatus(l) })(s.LUNs),
		Sessions:   each(sessionOf)(s.Sessions),
		Damage:     each(damagedOf)(s.Damage),
		MoreDamage: s.MoreDamage,
	}
}

// SessionV1 returns the JSON of a session.
func SessionV1(s admin.Session) v1.Session {
	return v1.Session{
		Initiator: s.Initiator, Alias: s.Alias, ISID: s.ISID, TSIH: s.TSIH, Target: s.Target, Addresses: s.Addresses, Since: s.Since,
		Commands: s.Commands, LUNs: each(func(l admin.SessionLUN) v1.SessionLUN { return v1.SessionLUN(l) })(s.LUNs),
		Portal: s.Portal, PortalGroup: s.PortalGroup, User: s.User, Negotiated: s.Negotiated,
		Total: trafficV1(s.Total), LastMinute: trafficV1(s.LastMinute), LoggingOut: s.LoggingOut,
	}
}

// SessionsV1 returns the JSON of sessions.
func SessionsV1(list []admin.Session) []v1.Session { return some(each(SessionV1)(list)) }

func sessionOf(s v1.Session) admin.Session {
	return admin.Session{
		Initiator: s.Initiator, Alias: s.Alias, ISID: s.ISID, TSIH: s.TSIH, Target: s.Target, Addresses: s.Addresses, Since: s.Since,
		Commands: s.Commands, LUNs: each(func(l v1.SessionLUN) admin.SessionLUN { return admin.SessionLUN(l) })(s.LUNs),
		Portal: s.Portal, PortalGroup: s.PortalGroup, User: s.User, Negotiated: s.Negotiated,
		Total: trafficOf(s.Total), LastMinute: trafficOf(s.LastMinute), LoggingOut: s.LoggingOut,
	}
}

func trafficV1(t admin.SessionTraffic) v1.Traffic {
	return v1.Traffic{Commands: t.Commands, Bytes: t.Bytes, Errors: t.Errors, MeanSeconds: t.Mean.Seconds(), P99Seconds: t.P99.Seconds()}
}

func trafficOf(t v1.Traffic) admin.SessionTraffic {
	return admin.SessionTraffic{Commands: t.Commands, Bytes: t.Bytes, Errors: t.Errors, Mean: durationOf(t.MeanSeconds), P99: durationOf(t.P99Seconds)}
}
