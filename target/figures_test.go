package target

import (
	"slices"
	"testing"
	"time"

	"odx/admin"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload/view"
)

// commandsOf returns the figures of one kind of command of a medium.
func commandsOf(t *testing.T, f *admin.Figures, medium, kind string) admin.KindFigures {
	t.Helper()
	for _, m := range f.Server.Media {
		for _, k := range m.Kinds {
			if m.Medium == medium && k.Kind == kind {
				return k
			}
		}
	}
	t.Fatalf("no figures of %s, %s", medium, kind)
	return admin.KindFigures{}
}

// TestService_Figures: what initiators do is in the figures, with each logical unit once,
// and what was measured before is not.
func TestService_Figures(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
  - name: iqn.2026-11.example.odx:others
    luns:
      - {lun: 7, volume: src}
      - {lun: 8, volume: gone}
`))
	d := login(t, s, 0)
	must.Succeed(t, d.WriteAt(t.Context(), random(1, 64<<10), 0))
	read(t, d, 0, 32<<10)
	f, err := s.Admin().Figures(t.Context())
	must.Succeed(t, err)
	if len(f.Server.Media) != 1 {
		t.Fatalf("media %+v", f.Server.Media)
	}
	if k := commandsOf(t, &f, "volume src", "write"); k.Bytes != 64<<10 || k.Commands == 0 || k.Errors != 0 {
		t.Errorf("writes %+v", k)
	}
	k := commandsOf(t, &f, "volume src", "read")
	if k.Bytes != 32<<10 || len(k.Latency.Counts) != len(k.Latency.Bounds)+1 || k.Latency.Sum == 0 {
		t.Errorf("reads %+v", k)
	}
	if !slices.IsSorted(k.Latency.Bounds) {
		t.Errorf("bounds %v", k.Latency.Bounds)
	}
	want := []admin.TargetFigures{{Target: "iqn.2026-11.example.odx:disks", Sessions: 1, Connections: 1}, {Target: "iqn.2026-11.example.odx:others"}}
	if !slices.Equal(f.Server.Targets, want) {
		t.Errorf("targets %+v", f.Server.Targets)
	}
	if f.Volumes != 1 || f.ProvisionedBytes != 64<<20 || f.Store.LiveBytes < 64<<10 || f.Store.FreeBytes <= 0 || time.Since(f.At) > time.Minute {
		t.Errorf("store %+v", f)
	}
	if got := conditions(f.Status); !slices.Equal(got, []string{"lun_not_served"}) {
		t.Errorf("conditions %v", got)
	}
	m, err := s.Admin().Measure(t.Context())
	must.Succeed(t, err)
	if m.LogicalBytes != 64<<10 || m.DedupRatio == 0 || m.At.IsZero() {
		t.Errorf("measured %+v", m)
	}
	s.CheckProgress()
}

// conditions returns the names of what there is to act upon.
func conditions(s admin.Status) (names []string) {
	for _, c := range s.Conditions() {
		names = append(names, c.Name)
	}
	return names
}

// TestService_Overview: a mirror that has dropped a leg, as figures of it would find it.
func TestService_Overview(t *testing.T) {
	s, err := Start(t.Context(), parse(t, t.TempDir(), `
data_dir: data
portals: ["127.0.0.1:0"]
views:
  - name: twice
    mirror: {legs: [a, b]}
    size: 8MiB
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, view: twice}
`), logs.Discard())
	must.Succeed(t, err)
	defer stop(t, s)
	must.Succeed(t, s.state.Load().views.devices["twice"].(*view.Mirror).Resync(t.Context())) // a new leg is synced in the background
	o, err := s.Admin().Overview()
	must.Succeed(t, err)
	if v := o.Vitals; len(v.Mirrors) != 1 || v.Mirrors[0] != (admin.Mirror{View: "twice", Legs: 2, InSync: 2}) {
		t.Errorf("mirrors %+v", v.Mirrors)
	}
	if len(o.LUNs) != 1 || o.LUNs[0].Medium != "view twice" || len(o.Sessions) != 0 || o.Health() != admin.Healthy {
		t.Errorf("overview %+v: %v", o, o.Conditions())
	}
}
