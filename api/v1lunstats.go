package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// LUNStatsV1 returns the JSON of the counters of a LUN.
func LUNStatsV1(s admin.LUNStats) v1.LUNStats {
	return v1.LUNStats{
		LUNName: lunNameV1(s.LUNName), Since: s.Since, Total: countersV1(s.Total), LastMinute: countersV1(s.Minute),
		Initiators: each(initiatorStatsV1)(s.Initiators),
	}
}

// AllLUNStatsV1 returns the JSON of the counters of LUNs.
func AllLUNStatsV1(list []admin.LUNStats) []v1.LUNStats { return some(each(LUNStatsV1)(list)) }

func lunStatsOf(s v1.LUNStats) admin.LUNStats {
	return admin.LUNStats{
		LUNName: lunNameOf(s.LUNName), Since: s.Since, Total: countersOf(s.Total), Minute: countersOf(s.LastMinute),
		Initiators: each(initiatorStatsOf)(s.Initiators),
	}
}

func initiatorStatsV1(s admin.InitiatorStats) v1.InitiatorStats {
	return v1.InitiatorStats{Initiator: s.Initiator, Total: countersV1(s.Total)}
}

func initiatorStatsOf(s v1.InitiatorStats) admin.InitiatorStats {
	return admin.InitiatorStats{Initiator: s.Initiator, Total: countersOf(s.Total)}
}

func countersV1(c admin.Counters) v1.Counters {
	return v1.Counters{Read: kindV1(c.Read), Write: kindV1(c.Write), Unmap: kindV1(c.Unmap), Copy: kindV1(c.Copy)}
}

func countersOf(c v1.Counters) admin.Counters {
	return admin.Counters{Read: kindOf(c.Read), Write: kindOf(c.Write), Unmap: kindOf(c.Unmap), Copy: kindOf(c.Copy)}
}

func kindV1(k admin.KindCounters) v1.KindCounters {
	return v1.KindCounters{
		Traffic: v1.Traffic{Commands: k.Commands, Bytes: k.Bytes, Errors: k.Errors, MeanSeconds: k.Mean.Seconds(), P99Seconds: k.P99.Seconds()},
		Latency: each(func(l admin.LatencyCount) v1.LatencyCount {
			return v1.LatencyCount{UpToSeconds: l.UpTo.Seconds(), Commands: l.Count}
		})(k.Latency),
	}
}

func kindOf(k v1.KindCounters) admin.KindCounters {
	return admin.KindCounters{
		Commands: k.Commands, Bytes: k.Bytes, Errors: k.Errors, Mean: durationOf(k.MeanSeconds), P99: durationOf(k.P99Seconds),
		Latency: each(func(l v1.LatencyCount) admin.LatencyCount {
			return admin.LatencyCount{UpTo: durationOf(l.UpToSeconds), Count: l.Commands}
		})(k.Latency),
	}
}
