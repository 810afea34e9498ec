package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"odx/admin"
	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/latency"
	"odx/monitor"
	"odx/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var rewrite = flag.Bool("rewrite", false, "write the table of metrics into docs/monitoring.md")

// source is a server with something in every figure.
type source struct {
	figures admin.Figures
	err     error
}

func (s *source) Figures(context.Context) (admin.Figures, error) {
	f := s.figures
	f.At = time.Now()
	return f, s.err
}
func (s *source) Overview() (admin.Status, error) { return s.figures.Status, nil }
func (s *source) Measure(context.Context) (admin.Measured, error) {
	return admin.Measured{At: time.Unix(1_800_000_000, 0), LogicalBytes: 1 << 40, DedupRatio: 2.5}, nil
}

// full returns figures with a value in each of them.
func full() admin.Figures {
	var took latency.Histogram
	took.Observe(3 * time.Millisecond)
	f := admin.Figures{
		Status: admin.Status{
			Portals: []string{"127.0.0.1:3260"}, MissingPortals: []admin.MissingPortal{{Address: "192.0.2.1:3260", Problem: "no such address"}},
			Standbys: 1, HandoversFailed: 2, HandoverError: "timeout",
			LUNs:   []admin.LUNStatus{{Target: "iqn.a", Number: 0, Medium: "volume src"}, {Target: "iqn.a", Number: 1, Medium: "volume dst", Problem: "damaged"}},
			Vitals: admin.Vitals{UsedBytes: 10, FreeBytes: 1 << 30, WarnBytes: 80, Mirrors: []admin.Mirror{{View: "m", Legs: 2, InSync: 1}}, Policies: []admin.PolicyStatus{{Policy: "hourly", Configured: true, LastSuccess: time.Unix(1_800_000_000, 0), Failures: 2, Snapshots: 7}}},
		},
		Store: backstore.Figures{
			LiveBytes: 10, FreeBytes: 90, Journal: backstore.JournalFigures{Syncs: took.Counts(), Failures: 1},
			Checkpoints: backstore.CheckpointFigures{Took: took.Counts(), Last: time.Unix(1_800_000_000, 0)},
			LastScrub:   backstore.LastScrub{Ended: time.Unix(1_800_000_000, 0), Damaged: 3},
		},
		Volumes: 2, Tokens: tokens.Stats{Live: 5, CancelledFor: map[tokens.Cause]uint64{tokens.OutOfSpace: 1}, Refused: map[string]uint64{"unknown": 1}},
		Server: admin.ServerFigures{
			Targets: []admin.TargetFigures{{Target: "iqn.a", Sessions: 3, Connections: 4, Commands: 5}},
			Peers:   []admin.Peer{{Name: "b", Up: true}},
			Copies:  admin.CopyCommands{PopulatedBytes: 100, PopulatedMovedBytes: 30, RefusedBy: map[string]uint64{"23h/07h": 2}},
			Replicas: []admin.ReplicaFigures{
				{Name: "web", Role: "replica", Succeeded: time.Unix(1000, 0), Lag: time.Minute, Rounds: 3, Failures: 1, FetchedBytes: 30, NetworkBytes: 20},
				{Name: "db", Role: "former"},
			},
			Migrations: []admin.Migration{{
				Volume: "web", To: "b:web", State: admin.MigrationMoved, Rounds: 3, CopiedBytes: 30, RoundBytes: 10, Cuts: 2, Cut: 250 * time.Millisecond, LongestCut: 500 * time.Millisecond,
			}},
		},
	}
	bounds := []time.Duration{time.Millisecond, 4 * time.Millisecond}
	f.Server.Media = []admin.MediumFigures{{Medium: "volume src", SizeBytes: 1 << 30, Kinds: []admin.KindFigures{
		{Kind: "read", Commands: 7, Bytes: 4096, Errors: 1, Latency: admin.Durations{Sum: 5 * time.Second, Bounds: bounds, Counts: []uint64{1, 2, 3}}},
		{Kind: "write"},
	}}}
	return f
}

// sampler returns a sampler that ends with the test, and has measured.
func sampler(tb testing.TB, s monitor.Source) *monitor.Sampler {
	tb.Helper()
	m := monitor.NewSampler(s)
	tb.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	for {
		sample, err := m.Latest(tb.Context())
		if err != nil {
			return m
		}
		if !sample.Measured.At.IsZero() {
			return m
		}
	}
}

// scrape returns what a handler answers.
func scrape(h http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w
}

// handler returns the handler of a server with these figures.
func handler(tb testing.TB, f admin.Figures) http.Handler {
	return NewHandler(sampler(tb, &source{figures: f}), Version{"0.2.0", "go1.26"}, logs.Discard())
}

// TestNewHandler: the values of a scrape.
func TestNewHandler(t *testing.T) {
	w := scrape(handler(t, full()))
	for _, want := range []string{
		`odx_build_info{go_version="go1.26",version="0.2.0"} 1`,
		`odx_health{state="degraded"} 1`, `odx_health{state="ok"} 0`,
		`odx_condition{condition="lun_not_served",severity="critical"} 1`,
		`odx_condition{condition="mirror_degraded",severity="warning"} 1`,
		`odx_condition{condition="store_full",severity="critical"} 0`,
		`odx_replica_role{replica="db",role="former"} 1`, `odx_replica_lag_seconds{replica="web"} 60`, `odx_replica_last_success_timestamp_seconds{replica="web"} 1000`,
		`odx_replica_failures_total{replica="web"} 1`, `odx_replica_network_bytes_total{replica="web"} 20`,
		`odx_migration_state{state="moved",to="b:web",volume="web"} 1`, `odx_migration_rounds{volume="web"} 3`, `odx_migration_copied_bytes{volume="web"} 30`,
		`odx_migration_round_bytes{volume="web"} 10`, `odx_migration_cuts{volume="web"} 2`, `odx_migration_cut_seconds{volume="web"} 0.25`, `odx_migration_longest_hold_seconds{volume="web"} 0.5`,
		`odx_lun_served{lun="0",medium="volume src",target="iqn.a"} 1`,
		`odx_lun_served{lun="1",medium="volume dst",target="iqn.a"} 0`,
		`odx_lun_commands_total{kind="read",medium="volume src"} 7`,
		`odx_lun_commands_total{kind="write",medium="volume src"} 0`,
		`odx_lun_bytes_total{kind="read",medium="volume src"} 4096`,
		`odx_lun_errors_total{kind="read",medium="volume src"} 1`,
		`odx_lun_command_duration_seconds_bucket{kind="read",medium="volume src",le="0.001"} 1`,
		`odx_lun_command_duration_seconds_bucket{kind="read",medium="volume src",le="0.004"} 3`,
		`odx_lun_command_duration_seconds_bucket{kind="read",medium="volume src",le="+Inf"} 6`,
		`odx_lun_command_duration_seconds_sum{kind="read",medium="volume src"} 5`,
		`odx_sessions{target="iqn.a"} 3`, `odx_connections{target="iqn.a"} 4`, `odx_outstanding_commands{target="iqn.a"} 5`,
		`odx_mirror_legs{state="missing",view="m"} 1`,
		`odx_copy_mapped_bytes_total{command="populate_token"} 70`, `odx_copy_moved_bytes_total{command="populate_token"} 30`,
		`odx_copy_commands_refused_total{sense="23h/07h"} 2`,
		`odx_tokens{state="live"} 5`, `odx_tokens_cancelled_total{cause="out of space"} 1`,
		`odx_store_capacity_bytes 100`, `odx_store_dedup_ratio 2.5`, `odx_scrub_damaged_extents 3`,
		`odx_journal_sync_duration_seconds_count 1`, `odx_checkpoint_duration_seconds_sum 0.003`, `odx_checkpoint_timestamp_seconds 1.8e+09`,
		`go_goroutines `, `process_open_fds `,
	} {
		if !strings.Contains(w.Body.String(), "\n"+want) {
			t.Errorf("no line %q", want)
		}
	}
	if t.Failed() {
		t.Log(w.Body)
	}
}

// TestFamilies: every family has a series in a scrape of a server with something of
// everything, and the names are those that Prometheus recommends.
func TestFamilies(t *testing.T) {
	text := scrape(handler(t, full())).Body.String()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range Families() {
		if !regexp.MustCompile(`(?m)^` + f.Name + `(_count)?[ {]`).MatchString(text) {
			t.Errorf("no series of %s", f.Name)
		}
		if !strings.HasSuffix(f.Help, ".") || !strings.HasPrefix(f.Name, "odx_") {
			t.Errorf("%s: %q", f.Name, f.Help)
		}
	}
}

// TestCollector_Collect/bounded: values that others choose make no series without bound.
func TestCollector_Collect(t *testing.T) {
	t.Run("bounded", func(t *testing.T) {
		f := full()
		for i := range 10_000 {
			f.Server.Copies.RefusedBy[fmt.Sprintf("%05d", i)] = 1
		}
		text := scrape(handler(t, f)).Body.String()
		if n := strings.Count(text, "\nodx_copy_commands_refused_total{"); n != maxValues+1 {
			t.Errorf("%d series, want %d", n, maxValues+1)
		}
		if want := fmt.Sprintf("\nodx_copy_commands_refused_total{sense=\"other\"} %d\n", 10_000+2-maxValues); !strings.Contains(text, want) {
			t.Errorf("no line %q", want)
		}
	})
	t.Run("initiators make no series", func(t *testing.T) {
		a, b := full(), full()
		b.Server.Targets[0].Sessions = 100_000
		b.Server.Copies.Recent = slices.Repeat([]admin.CopyRefusal{{Initiator: "iqn.evil"}}, 32)
		count := func(f admin.Figures) int { return strings.Count(scrape(handler(t, f)).Body.String(), "\nodx_") }
		if one, many := count(a), count(b); one != many {
			t.Errorf("%d series, and %d with many initiators", one, many)
		}
	})
	t.Run("no figures", func(t *testing.T) {
		s := sampler(t, &source{err: errors.New("closed")})
		if w := scrape(NewHandler(s, Version{}, logs.Discard())); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "closed") {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}

const monitoringDoc = "../docs/monitoring.md"

// TestDocumentation: the table of metrics in docs/monitoring.md is that of the code. -rewrite
// writes it.
func TestDocumentation(t *testing.T) {
	const begin, end = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
	text, err := os.ReadFile(monitoringDoc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	table, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %q and %q", monitoringDoc, begin, end)
	}
	want := documentation()
	if table == want {
		return
	}
	if !*rewrite {
		t.Fatalf("the table of %s is not that of the code: run go test ./metrics -run TestDocumentation -rewrite, and read the diff", monitoringDoc)
	}
	if err := os.WriteFile(monitoringDoc, []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func documentation() string {
	var b strings.Builder
	b.WriteString("| metric | labels | type | meaning |\n|---|---|---|---|\n")
	for _, f := range Families() {
		labels := strings.Join(f.Labels, ", ")
		if labels == "" {
			labels = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, labels, f.Type, f.Help)
	}
	return b.String()
}

// BenchmarkScrape is a scrape of a server with 1,000 LUNs that have all kinds of commands.
func BenchmarkScrape(b *testing.B) {
	f := full()
	medium := f.Server.Media[0]
	read := medium.Kinds[0]
	read.Latency.Bounds, read.Latency.Counts = make([]time.Duration, 20), make([]uint64, 21)
	for i := range read.Latency.Bounds {
		read.Latency.Bounds[i] = 16 * time.Microsecond << i
	}
	f.Server.Media = nil
	for i := range 1000 {
		m := admin.MediumFigures{Medium: fmt.Sprintf("volume %d", i)}
		for _, kind := range []string{"other", "read", "write", "unmap", "copy"} {
			k := read
			k.Kind = kind
			m.Kinds = append(m.Kinds, k)
		}
		f.Server.Media = append(f.Server.Media, m)
	}
	h := handler(b, f)
	b.ReportAllocs()
	for b.Loop() {
		b.ReportMetric(float64(scrape(h).Body.Len()), "bytes/scrape")
	}
}
