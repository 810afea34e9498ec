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
		Pool:           s.Pool, Epoch: s.Epoch,
		PID: s.PID, HandoversFailed: s.HandoversFailed, HandoverError: s.HandoverError,
		AuditProblem: s.AuditProblem, AuditLost: s.AuditLost,
		LUNs:       each(func(l admin.LUNStatus) v1.LUNStatus { return v1.LUNStatus(l) })(s.LUNs),
		Sessions:   each(SessionV1)(s.Sessions),
		Damage:     each(damagedV1)(s.Damage),
		MoreDamage: s.MoreDamage,
		Health:     string(s.Health()),
		Conditions: each(conditionV1)(s.Conditions()),
		Vitals:     vitalsV1(s.Vitals),
	}
}

// statusOf is the inverse of StatusV1. Health and conditions follow from the rest.
func statusOf(s v1.Status) admin.Status {
	return admin.Status{
		Portals:        s.Portals,
		MissingPortals: each(func(p v1.MissingPortal) admin.MissingPortal { return admin.MissingPortal(p) })(s.MissingPortals),
		Standbys:       s.Standbys,
		Pool:           s.Pool, Epoch: s.Epoch,
		PID: s.PID, HandoversFailed: s.HandoversFailed, HandoverError: s.HandoverError,
		AuditProblem: s.AuditProblem, AuditLost: s.AuditLost,
		LUNs:       each(func(l v1.LUNStatus) admin.LUNStatus { return admin.LUNStatus(l) })(s.LUNs),
		Sessions:   each(sessionOf)(s.Sessions),
		Damage:     each(damagedOf)(s.Damage),
		MoreDamage: s.MoreDamage,
		Vitals:     vitalsOf(s.Vitals),
	}
}

func conditionV1(c admin.Condition) v1.Condition {
	return v1.Condition{Name: c.Name, Severity: string(c.Severity), Summary: c.Summary}
}

func vitalsV1(v admin.Vitals) v1.Vitals {
	return v1.Vitals{
		StoreFailure: v.StoreFailure, CheckpointFailure: v.CheckpointFailure, StoreFull: v.StoreFull,
		UsedBytes: v.UsedBytes, FreeBytes: v.FreeBytes, WarnBytes: v.WarnBytes,
		Mirrors:       each(func(m admin.Mirror) v1.Mirror { return v1.Mirror(m) })(v.Mirrors),
		Replicas:      v.Replicas,
		Policies:      each(SnapshotPolicyV1)(v.Policies),
		RefusedCopies: v.RefusedCopies, LastRefusal: v.LastRefusal, StalledSeconds: v.Stalled.Seconds(),
	}
}

func vitalsOf(v v1.Vitals) admin.Vitals {
	return admin.Vitals{
		StoreFailure: v.StoreFailure, CheckpointFailure: v.CheckpointFailure, StoreFull: v.StoreFull,
		UsedBytes: v.UsedBytes, FreeBytes: v.FreeBytes, WarnBytes: v.WarnBytes,
		Mirrors:       each(func(m v1.Mirror) admin.Mirror { return admin.Mirror(m) })(v.Mirrors),
		Replicas:      v.Replicas,
		Policies:      each(policyStatusOf)(v.Policies),
		RefusedCopies: v.RefusedCopies, LastRefusal: v.LastRefusal, Stalled: durationOf(v.StalledSeconds),
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
