package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"odx/alerts"
)

// seriesName is the name of a series in a query.
var seriesName = regexp.MustCompile(`\b(?:odx|go|process)_[a-z0-9_]+`)

// scraped returns the names of the series in a scrape.
func scraped(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for line := range strings.Lines(scrape(handler(t, full())).Body.String()) {
		if !strings.HasPrefix(line, "#") {
			names[strings.FieldsFunc(line, func(r rune) bool { return r == '{' || r == ' ' })[0]] = true
		}
	}
	return names
}

// TestContrib: the dashboard and the rules query series that there are.
func TestContrib(t *testing.T) {
	names := scraped(t)
	for _, file := range []string{"../contrib/grafana/odx.json", "../contrib/prometheus/odx.rules.yml", "../contrib/prometheus/odx.rules.test.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := seriesName.FindAllString(string(text), -1)
		if len(found) < 10 {
			t.Errorf("%s queries %d series", file, len(found))
		}
		for _, name := range found {
			if !names[name] {
				t.Errorf("%s queries %s, which is not scraped", file, name)
			}
		}
	}
}

// TestContrib_Dashboard: every panel has a query, and its own place.
func TestContrib_Dashboard(t *testing.T) {
	text, err := os.ReadFile("../contrib/grafana/odx.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID          int
			Title, Type string
			Targets     []struct{ Expr string }
			GridPos     struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q: number %d, %d queries", p.Title, p.ID, len(p.Targets))
		}
		seen[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// TestContrib_Rules: there is a rule for each alert that odx posts itself, with the same
// name and severity.
func TestContrib_Rules(t *testing.T) {
	text, err := os.ReadFile("../contrib/prometheus/odx.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`(?s)- alert: (\w+)\n.*?severity: (\w+)`)
	rules := map[string]string{}
	for _, m := range rule.FindAllStringSubmatch(string(text), -1) {
		rules[m[1]] = m[2]
	}
	for name, severity := range alerts.Names() {
		if rules[name] != string(severity) {
			t.Errorf("alert %s is %s in the rules, %s in odx", name, rules[name], severity)
		}
	}
	tests, err := os.ReadFile("../contrib/prometheus/odx.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name := range rules {
		if !slices.Contains(strings.Fields(string(tests)), name) {
			t.Errorf("rule %s has no test", name)
		}
	}
}
