package metrics

import (
	"odx/admin"
	"odx/monitor"
)

// maxMigrations bounds the migrations that have metrics: those that have ended stay until an
// administrator has finished them.
const maxMigrations = 256

// migrationFamilies are the metrics of migrations of volumes.
func migrationFamilies() []Family {
	each := func(kind Type, name, help string, value func(*admin.Migration) float64) Family {
		return Family{Name: name, Help: help, Type: kind, Labels: []string{"volume"}, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			for _, m := range migrationsOf(s) {
				emit(value(&m), m.Volume)
			}
		}}
	}
	return []Family{
		{Name: "odx_migration_state", Help: "1 for the state of a migration: copying, handing-over, moved, aborting or aborted.", Type: Gauge, Labels: []string{"volume", "to", "state"},
			values: func(s *monitor.Sample, emit func(float64, ...string)) {
				for _, m := range migrationsOf(s) {
					emit(1, m.Volume, m.To, string(m.State))
				}
			}},
		each(Gauge, "odx_migration_rounds", "Rounds that were copied.", func(m *admin.Migration) float64 { return float64(m.Rounds) }),
		each(Gauge, "odx_migration_copied_bytes", "What was copied in all rounds that have ended.", func(m *admin.Migration) float64 { return float64(m.CopiedBytes) }),
		each(Gauge, "odx_migration_round_bytes", "What the current round has to copy.", func(m *admin.Migration) float64 { return float64(m.RoundBytes) }),
		each(Gauge, "odx_migration_cuts", "Attempts to move the LUNs.", func(m *admin.Migration) float64 { return float64(m.Cuts) }),
		each(Gauge, "odx_migration_cut_seconds", "How long commands were held when the LUNs moved; 0 before.", func(m *admin.Migration) float64 { return m.Cut.Seconds() }),
		each(Gauge, "odx_migration_longest_hold_seconds", "How long commands were held at the longest of the attempts.", func(m *admin.Migration) float64 { return m.LongestCut.Seconds() }),
	}
}

// migrationsOf returns the migrations that have metrics.
func migrationsOf(s *monitor.Sample) []admin.Migration {
	all := s.Figures.Server.Migrations
	return all[:min(maxMigrations, len(all))]
}
