package metrics

import (
	"maps"
	"slices"
	"strconv"

	"odx/admin"
	"odx/monitor"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// serverFamilies are about the process, its portals, and who is logged in.
func serverFamilies() []Family {
	perTarget := func(name, help string, value func(*admin.TargetFigures) int) Family {
		return Family{Name: name, Help: help, Type: Gauge, Labels: []string{"target"}, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			for i := range s.Figures.Server.Targets {
				t := &s.Figures.Server.Targets[i]
				emit(float64(value(t)), t.Target)
			}
		}}
	}
	return []Family{
		one(Gauge, "odx_figures_timestamp_seconds", "When the figures of this scrape were read. Earlier than the scrape: the store does not answer.",
			func(s *monitor.Sample) float64 { return seconds(s.Figures.At) }),
		{Name: "odx_health", Help: "1 for the state that the server is in: ok, degraded (see odx_condition; LUNs are served) or failing.", Type: Gauge, Labels: []string{"state"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				is := s.Figures.Status.Health()
				for _, state := range []admin.Health{admin.Healthy, admin.Degraded, admin.Failing} {
					emit(number(is == state), string(state))
				}
			}},
		{Name: "odx_condition", Help: "1 while there is something that an administrator has to act upon; `odx status` says what.", Type: Gauge, Labels: []string{"condition", "severity"},
			values: conditions},
		{Name: "odx_portals", Help: "Portals by state: bound, or missing, which the server tries again.", Type: Gauge, Labels: []string{"state"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				emit(float64(len(s.Figures.Status.Portals)), "bound")
				emit(float64(len(s.Figures.Status.MissingPortals)), "missing")
			}},
		perTarget("odx_sessions", "Sessions of initiators.", func(t *admin.TargetFigures) int { return t.Sessions }),
		perTarget("odx_connections", "Connections of sessions.", func(t *admin.TargetFigures) int { return t.Connections }),
		perTarget("odx_outstanding_commands", "Commands that have arrived and are not answered.", func(t *admin.TargetFigures) int { return t.Commands }),
		one(Gauge, "odx_discovery_sessions", "Sessions for discovery.", func(s *monitor.Sample) float64 { return float64(s.Figures.Server.DiscoverySessions) }),
		one(Gauge, "odx_standbys", "Processes that wait to take over.", func(s *monitor.Sample) float64 { return float64(s.Figures.Status.Standbys) }),
		one(Counter, "odx_handovers_failed_total", "Handovers after which this process went on.", func(s *monitor.Sample) float64 { return float64(s.Figures.Status.HandoversFailed) }),
		{Name: "odx_mirror_legs", Help: "Legs of a mirror by state: in_sync, or missing, which have not all data.", Type: Gauge, Labels: []string{"view", "state"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				for _, m := range s.Figures.Status.Vitals.Mirrors {
					emit(float64(m.InSync), m.View, "in_sync")
					emit(float64(m.Legs-m.InSync), m.View, "missing")
				}
			}},
		perPolicy("odx_snapshot_last_success_timestamp_seconds", "When the last run of a policy of snapshots began that did all that it was to; 0 for none.", func(p *admin.PolicyStatus) float64 { return seconds(p.LastSuccess) }),
		perPolicy("odx_snapshot_failures", "Runs of a policy of snapshots that failed since then.", func(p *admin.PolicyStatus) float64 { return float64(p.Failures) }),
		perPolicy("odx_policy_snapshots", "Snapshots that a policy has taken and that exist.", func(p *admin.PolicyStatus) float64 { return float64(p.Snapshots) }),
	}
}

// perPolicy is a gauge of each policy of snapshots.
func perPolicy(name, help string, value func(*admin.PolicyStatus) float64) Family {
	return Family{Name: name, Help: help, Type: Gauge, Labels: []string{"policy"}, values: func(s *monitor.Sample, emit func(float64, ...string)) {
		for i := range s.Figures.Status.Vitals.Policies {
			p := &s.Figures.Status.Vitals.Policies[i]
			emit(value(p), p.Policy)
		}
	}}
}

// conditions emits 0 or 1 for every condition that there can be.
func conditions(s *monitor.Sample, emit func(float64, ...string)) {
	active := map[string]bool{}
	for _, c := range s.Figures.Status.Conditions() {
		active[c.Name] = true
	}
	all := admin.ConditionNames()
	for _, name := range sorted(all) {
		emit(number(active[name]), name, string(all[name]))
	}
}

// lunFamilies are about LUNs. A volume that is a LUN of several targets is one logical unit,
// whose commands are counted once: metrics of commands have its medium as their label, and
// odx_lun_served says which LUNs that is.
func lunFamilies() []Family {
	medium := []string{"medium", "kind"}
	perKind := func(name, help string, value func(*admin.KindFigures) uint64) Family {
		return Family{Name: name, Help: help, Type: Counter, Labels: medium, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			for i := range s.Figures.Server.Media {
				m := &s.Figures.Server.Media[i]
				for k := range m.Kinds {
					emit(float64(value(&m.Kinds[k])), m.Medium, m.Kinds[k].Kind)
				}
			}
		}}
	}
	return []Family{
		{Name: "odx_lun_served", Help: "1 for a LUN of the configuration that is served, 0 for one that is not, with the medium that its blocks are on.", Type: Gauge, Labels: []string{"target", "lun", "medium"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				for i := range s.Figures.Status.LUNs {
					l := &s.Figures.Status.LUNs[i]
					emit(number(l.Problem == ""), l.Target, strconv.Itoa(int(l.Number)), l.Medium)
				}
			}},
		{Name: "odx_lun_size_bytes", Help: "The size of a LUN.", Type: Gauge, Labels: []string{"medium"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				for i := range s.Figures.Server.Media {
					emit(float64(s.Figures.Server.Media[i].SizeBytes), s.Figures.Server.Media[i].Medium)
				}
			}},
		perKind("odx_lun_commands_total", "Commands that have ended, by kind: read, write, unmap, copy, other.", func(k *admin.KindFigures) uint64 { return k.Commands }),
		perKind("odx_lun_bytes_total", "Bytes that were read, written, unmapped or copied.", func(k *admin.KindFigures) uint64 { return k.Bytes }),
		perKind("odx_lun_errors_total", "Commands that ended with another status than GOOD.", func(k *admin.KindFigures) uint64 { return k.Errors }),
		{Name: "odx_lun_command_duration_seconds", Help: "How long commands ran, without waits for data, for a worker and for other commands. A kind without commands has no histogram.",
			Type: Histogram, Labels: medium, durations: func(s *monitor.Sample, emit func(*admin.Durations, ...string)) {
				for i := range s.Figures.Server.Media {
					m := &s.Figures.Server.Media[i]
					for k := range m.Kinds {
						if d := &m.Kinds[k].Latency; m.Kinds[k].Commands > 0 {
							emit(d, m.Medium, m.Kinds[k].Kind)
						}
					}
				}
			}},
	}
}
