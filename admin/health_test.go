package admin

import (
	"strings"
	"testing"
	"time"

	"odx/backstore"
)

// healthy is the status of a server that lacks nothing.
func healthy() Status {
	return Status{
		Portals: []string{"127.0.0.1:3260"}, LUNs: []LUNStatus{{Target: "iqn.a", Number: 1, Medium: "volume src"}},
		Vitals: Vitals{UsedBytes: 10, FreeBytes: 10 << 20, WarnBytes: 80, Mirrors: []Mirror{{View: "m", Legs: 2, InSync: 2}}},
	}
}

// TestStatus_Conditions: each condition alone, with its severity, what it makes of the
// health, and a summary that names the subject.
func TestStatus_Conditions(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range []struct {
		name     string
		change   func(*Status)
		severity Severity
		health   Health
		summary  string
	}{
		{"store_failed", func(s *Status) { s.Vitals.StoreFailure = "half done" }, Critical, Failing, "half done"},
		{"portals_closed", func(s *Status) { s.Portals = nil }, Critical, Failing, "no portal is bound"},
		{"store_stalled", func(s *Status) { s.Vitals.Stalled = 12 * time.Second }, Critical, Degraded, "for 12s"},
		{"damage", func(s *Status) {
			s.Damage, s.MoreDamage = []backstore.Damaged{{What: "volume src at 4096", Error: "checksum mismatch"}}, 2
		}, Critical, Degraded, "in 3 places, the first one is volume src at 4096 (checksum mismatch)"},
		{"store_full", func(s *Status) { s.Vitals.StoreFull = true }, Critical, Degraded, "writes of new data fail"},
		{"store_full", func(s *Status) { s.Vitals.FreeBytes = roomBytes - 1 }, Critical, Degraded, "writes of new data fail"},
		{"checkpoint_failing", func(s *Status) { s.Vitals.CheckpointFailure = "input/output error" }, Critical, Degraded, "input/output error"},
		{"lun_not_served", func(s *Status) { s.LUNs[0].Problem = "volume damaged" }, Critical, Degraded, "1 of 1 LUNs are not served, the first one is iqn.a/1: volume damaged"},
		{"mirror_degraded", func(s *Status) { s.Vitals.Mirrors[0].InSync = 1 }, Warning, Degraded, "m (1 of 2)"},
		{"replica_behind", func(s *Status) { s.Vitals.Replicas = []string{"web: 2h0m0s behind its source"} }, Warning, Degraded, "web: 2h0m0s behind"},
		{"snapshots_failing", func(s *Status) {
			s.Vitals.Policies = []PolicyStatus{{Policy: "fine", Configured: true, Failures: 1, LastError: "once"}, {Policy: "hourly", Configured: true, Failures: 2, LastError: "no space"}, {Policy: "gone", Failures: 9}}
		}, Warning, Degraded, "has the reasons: hourly; the first one: no space"},
		{"store_nearly_full", func(s *Status) { s.Vitals.UsedBytes = 80 }, Warning, Degraded, "80 B of the store are used"},
		{"audit_not_written", func(s *Status) { s.AuditProblem = "permission denied" }, Warning, Degraded, "permission denied"},
		{"portal_missing", func(s *Status) { s.MissingPortals = []MissingPortal{{"192.0.2.1:3260", "no such address"}} }, Warning, Degraded, "192.0.2.1:3260: no such address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen[tt.name] = true
			s := healthy()
			tt.change(&s)
			got := s.Conditions()
			if len(got) != 1 || got[0].Name != tt.name || got[0].Severity != tt.severity || !strings.Contains(got[0].Summary, tt.summary) {
				t.Errorf("%+v, want %s %s with %q", got, tt.severity, tt.name, tt.summary)
			}
			if h := s.Health(); h != tt.health || (s.Unready() != "") != (h == Failing) {
				t.Errorf("health %s, unready %q", h, s.Unready())
			}
			if ConditionNames()[tt.name] != tt.severity {
				t.Errorf("listed as %q", ConditionNames()[tt.name])
			}
		})
	}
	if s := healthy(); s.Health() != Healthy || len(s.Conditions()) != 0 || s.Unready() != "" {
		t.Errorf("healthy: %s, %v", s.Health(), s.Conditions())
	}
	for name := range ConditionNames() {
		if !seen[name] {
			t.Errorf("condition %s is not tested", name)
		}
	}
}
