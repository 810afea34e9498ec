package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"odx/admin"
	"odx/audit"
	"odx/conf"
	"odx/latency"
	"odx/target/iscsi"
	"odx/target/qos"
	"odx/target/scsi"
)

// auditOptions returns the options of the audit of a configuration.
func auditOptions(cfg *conf.Config) audit.Options {
	return audit.Options{File: cfg.Audit.File, MaxBytes: cfg.Audit.MaxSize, Keep: cfg.Audit.Keep}
}

// Audit returns the record of changes, valid until Stop.
func (s *Service) Audit() *audit.Log { return s.audit }

// auditLimit bounds the wait for the disk of the audit file at the stop.
const auditLimit = time.Second

// closeAudit writes what was recorded.
func (s *Service) closeAudit() error {
	if s.audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), auditLimit)
	defer cancel()
	return s.audit.Close(ctx)
}

// auditOf returns what records the changes that initiators make to a logical unit.
func (s *Service) auditOf(l *conf.LUN) func(scsi.Event) {
	medium := l.Medium()
	return func(e scsi.Event) {
		s.audit.Record(audit.With(context.Background(), audit.Initiator(e.Nexus.InitiatorName, "")), audit.Change{
			What: e.Command, Subject: fmt.Sprintf("%s: %s (LUN %d of %s)", e.What, medium, e.LUN, e.Nexus.TargetName), Before: e.Before, After: e.After,
		})
	}
}

// limit sets the limits of initiators, of LUNs and of background work.
func (s *Service) limit(st *state) {
	cfg := st.cfg
	s.background.Set(limitsOf(cfg.QoS.Background))
	s.initiators.Set(func(initiator string) qos.Limits { return limitsOf(cfg.QoS.OfInitiator(initiator)) })
	places := map[*unit][]place{}
	rates := map[*unit]conf.Rate{}
	media := map[*unit]string{}
	for t, l := range st.luns {
		if u := st.units[l.Medium()]; u != nil {
			places[u], rates[u] = append(places[u], place{target: t.Name, lun: l.Number}), l.Rate
			media[u] = l.Medium()
		}
	}
	for u, at := range places {
		rate := rates[u]
		rate.BytesPerSecond = s.throttled.bound(media[u], rate.BytesPerSecond)
		u.lu.SetLimits(limitsOf(rate), func(initiator string) qos.Limits {
			for _, p := range at {
				if r := cfg.QoS.OfLUN(p.target, p.lun, initiator); r.Limited() {
					return limitsOf(r)
				}
			}
			return qos.Limits{}
		})
	}
}

// limitsOf returns the limits of a rate.
func limitsOf(r conf.Rate) qos.Limits {
	r = r.WithBursts()
	return qos.Limits{Operations: r.IOPS, OperationsBurst: r.IOPSBurst, Bytes: r.BytesPerSecond, BytesBurst: r.BytesBurst}
}

// liftLimits lets all commands pass that limits hold back.
func (s *Service) liftLimits() {
	for _, device := range s.state.Load().devices {
		device.LiftLimits()
	}
}

// sample keeps the counts of commands for the figures of the last minute, until ctx ends.
func (s *Service) sample(ctx context.Context) {
	tick := time.NewTicker(scsi.SampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			for _, device := range s.state.Load().devices {
				device.Sample(at)
			}
		}
	}
}

// Sessions implements admin.Live.
func (s *Service) Sessions(context.Context) ([]admin.Session, error) {
	sessions := []admin.Session{}
	for _, i := range s.server.Sessions() {
		sessions = append(sessions, s.session(&i))
	}
	return sessions, nil
}

// EndSession implements admin.Live.
func (s *Service) EndSession(ctx context.Context, tsih uint16) error {
	var subject string
	for _, i := range s.server.Sessions() {
		if i.TSIH == tsih {
			subject = fmt.Sprintf("session %d of %s", tsih, i.InitiatorName)
			if i.TargetName != "" {
				subject += " at " + i.TargetName
			}
		}
	}
	err := s.server.EndSession(tsih)
	if errors.Is(err, iscsi.ErrNoSession) {
		return fmt.Errorf("session %d: %w", tsih, admin.ErrNoSession)
	}
	s.audit.Record(ctx, audit.Change{What: "end session", Subject: subject, Err: err})
	return err
}

// LUNStats implements admin.Live.
func (s *Service) LUNStats(context.Context) ([]admin.LUNStats, error) {
	all := []admin.LUNStats{}
	now, st := time.Now(), s.state.Load()
	for t, l := range st.luns {
		u := st.units[l.Medium()]
		if u == nil {
			continue
		}
		stats, minute := u.lu.Stats(), u.lu.LastMinute(now)
		one := admin.LUNStats{
			LUNName: admin.LUNName{Target: t.Name, Number: l.Number, Medium: l.Medium()},
			Since:   u.since, Total: countersOf(&stats.Total), Minute: countersOf(&minute.Stats), Initiators: []admin.InitiatorStats{},
		}
		for _, name := range slices.Sorted(maps.Keys(stats.Initiators)) {
			own := stats.Initiators[name]
			one.Initiators = append(one.Initiators, admin.InitiatorStats{Initiator: name, Total: countersOf(&own)})
		}
		all = append(all, one)
	}
	return all, nil
}

// countersOf converts counts.
func countersOf(s *scsi.Stats) admin.Counters {
	return admin.Counters{
		Read: kindOf(&s[scsi.KindRead]), Write: kindOf(&s[scsi.KindWrite]), Unmap: kindOf(&s[scsi.KindUnmap]), Copy: kindOf(&s[scsi.KindCopy]),
	}
}

func kindOf(c *scsi.Counts) admin.KindCounters {
	k := admin.KindCounters{Commands: c.Commands, Bytes: c.Bytes, Errors: c.Errors, P99: c.Latency.Quantile(0.99)}
	if ran := c.Latency.Total(); ran > 0 {
		k.Mean = c.Latency.Sum / time.Duration(ran)
	}
	for i, n := range c.Latency.Buckets {
		if n == 0 {
			continue
		}
		count := admin.LatencyCount{UpTo: latency.Bound(i), Count: n}
		if i == latency.Buckets-1 {
			count.UpTo = 0
		}
		k.Latency = append(k.Latency, count)
	}
	return k
}

// negotiated returns the keys of a session and of its first connection, by their names in
// RFC 7143.
func negotiated(i *iscsi.SessionInfo) map[string]string {
	yes := map[bool]string{true: "Yes", false: "No"}
	digest := map[bool]string{true: "CRC32C", false: "None"}
	k := &i.Keys
	keys := map[string]string{
		"MaxConnections": strconv.Itoa(k.MaxConnections), "InitialR2T": yes[k.InitialR2T], "ImmediateData": yes[k.ImmediateData],
		"MaxBurstLength": strconv.Itoa(k.MaxBurstLength), "FirstBurstLength": strconv.Itoa(k.FirstBurstLength),
		"MaxOutstandingR2T": strconv.Itoa(k.MaxOutstandingR2T), "DefaultTime2Wait": strconv.Itoa(k.DefaultTime2Wait),
		"DefaultTime2Retain": strconv.Itoa(k.DefaultTime2Retain), "ErrorRecoveryLevel": strconv.Itoa(k.ErrorRecoveryLevel),
	}
	if len(i.Connections) > 0 {
		c := &i.Connections[0]
		keys["HeaderDigest"], keys["DataDigest"] = digest[c.HeaderDigest], digest[c.DataDigest]
		keys["MaxRecvDataSegmentLength"] = strconv.Itoa(c.TargetSegment)
	}
	return keys
}

func trafficOf(t *iscsi.Traffic) admin.SessionTraffic {
	return admin.SessionTraffic{Commands: t.Commands, Errors: t.Errors, Bytes: t.Received + t.Sent, Mean: t.Mean, P99: t.P99}
}
