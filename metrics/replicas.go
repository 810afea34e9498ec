package metrics

import (
	"odx/admin"
	"odx/monitor"
)

// maxReplicas bounds the replicas that have metrics: peers choose the names of what their
// replicas follow.
const maxReplicas = 256

// replicaFamilies are the metrics of replicas, and of what replicas of peers follow.
func replicaFamilies() []Family {
	each := func(kind Type, name, help string, value func(*admin.ReplicaFigures) (float64, bool)) Family {
		return Family{Name: name, Help: help, Type: kind, Labels: []string{"replica"}, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			for i := range s.Figures.Server.Replicas[:min(maxReplicas, len(s.Figures.Server.Replicas))] {
				r := &s.Figures.Server.Replicas[i]
				if v, ok := value(r); ok {
					emit(v, r.Name)
				}
			}
		}}
	}
	follows := func(value func(*admin.ReplicaFigures) float64) func(*admin.ReplicaFigures) (float64, bool) {
		return func(r *admin.ReplicaFigures) (float64, bool) { return value(r), r.Role == "replica" }
	}
	return []Family{
		{Name: "odx_replica_role", Help: "1 for the role that this server has in a replica: source, replica, or former (a source from which a peer has taken over).", Type: Gauge, Labels: []string{"replica", "role"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				for i := range s.Figures.Server.Replicas[:min(maxReplicas, len(s.Figures.Server.Replicas))] {
					emit(1, s.Figures.Server.Replicas[i].Name, s.Figures.Server.Replicas[i].Role)
				}
			}},
		each(Gauge, "odx_replica_last_success_timestamp_seconds", "When the last round of a replica ended well, at a source when the replica has said so; 0 for never.",
			func(r *admin.ReplicaFigures) (float64, bool) { return seconds(r.Succeeded), true }),
		each(Gauge, "odx_replica_lag_seconds", "How long ago the source had what the replica has.", func(r *admin.ReplicaFigures) (float64, bool) {
			return r.Lag.Seconds(), r.Role == "replica" && r.Lag > 0
		}),
		each(Counter, "odx_replica_rounds_total", "Rounds of a replica, failed ones too.", follows(func(r *admin.ReplicaFigures) float64 { return float64(r.Rounds) })),
		each(Counter, "odx_replica_failures_total", "Rounds of a replica that failed.", follows(func(r *admin.ReplicaFigures) float64 { return float64(r.Failures) })),
		each(Counter, "odx_replica_fetched_bytes_total", "What differed from the source and was fetched, or found here.", follows(func(r *admin.ReplicaFigures) float64 { return float64(r.FetchedBytes) })),
		each(Counter, "odx_replica_network_bytes_total", "What of that was read of the source.", follows(func(r *admin.ReplicaFigures) float64 { return float64(r.NetworkBytes) })),
	}
}
