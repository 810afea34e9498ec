//go:build e2e

package monitoring

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// patience bounds the wait for what other programs do.
const patience = 40 * time.Second

const contrib = "../../contrib"

// TestRules has promtool judge the rules, their tests, and what is scraped.
func TestRules(t *testing.T) {
	promtool := harness.Program(t, "promtool", "prometheus")
	harness.Run(t.Context(), t, promtool, "check", "rules", contrib+"/prometheus/odx.rules.yml")
	harness.Run(t.Context(), t, promtool, "test", "rules", contrib+"/prometheus/odx.rules.test.yml")
	address := free(t)
	harness.ServeWith(t, kit.Settings{File: map[string]any{"metrics": map[string]string{"listen": address}}}, kit.LUN{Size: 64 << 20})
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(get(t, "http://"+address+"/metrics"))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// free returns an address of the loopback on which nothing listens.
func free(t *testing.T) string {
	t.Helper()
	address, err := kit.FreePortal()
	harness.Must(t, err)
	return address
}

// get returns the body of a GET that has to succeed.
func get(t *testing.T, url string) string {
	t.Helper()
	body, err := tryGet(url)
	harness.Must(t, err)
	return body
}

func tryGet(url string) (string, error) {
	res, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.1000s", url, res.Status, body)
	}
	return string(body), err
}

// until waits for what another program does by itself.
func until(t *testing.T, what string, done func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s: %v", what, err)
		}
	}
}

// daemon runs a program until the test ends.
func daemon(t *testing.T, path string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	harness.Must(t, cmd.Start())
	t.Cleanup(func() {
		harness.Must(t, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("%s ended with %v; its last output:\n%s", filepath.Base(path), err, tail(out.String()))
		}
	})
}

func tail(text string) string { return text[max(0, len(text)-8000):] }

// receiver is a webhook.
type receiver struct {
	mu   sync.Mutex
	seen map[string][]string // statuses by the name of the alert, in their order
}

// ServeHTTP takes what Alertmanager posts.
func (r *receiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	var m struct {
		Version string
		Alerts  []struct {
			Status              string
			Labels, Annotations map[string]string
		}
	}
	if err := json.NewDecoder(req.Body).Decode(&m); err != nil || m.Version != "4" {
		r.note("bad message", fmt.Sprint(m.Version, err))
		return
	}
	for _, a := range m.Alerts {
		if a.Labels["severity"] == "" || a.Annotations["summary"] == "" || a.Labels["instance"] == "" {
			r.note("bad message", fmt.Sprint(a))
		}
		r.note(a.Labels["alertname"], a.Status)
	}
}

func (r *receiver) note(alert, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if list := r.seen[alert]; len(list) == 0 || list[len(list)-1] != status {
		r.seen[alert] = append(list, status)
	}
}

// had returns nil once an alert has had these statuses.
func (r *receiver) had(alert string, want ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bad := r.seen["bad message"]; len(bad) > 0 {
		return fmt.Errorf("bad messages: %q", bad)
	}
	if !slices.Equal(r.seen[alert], want) {
		return fmt.Errorf("%s is %q, want %q; all: %v", alert, r.seen[alert], want, r.seen)
	}
	return nil
}

// webhook returns a receiver and its URL.
func webhook(t *testing.T) (*receiver, string) {
	t.Helper()
	r := &receiver{seen: map[string][]string{}}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, s.URL
}

// prometheus is a running Prometheus that scrapes odx and alerts by its rules.
type prometheus struct{ base string }

// query returns how many series a query has.
func (p *prometheus) query(q string) (int, error) {
	body, err := tryGet(p.base + "/api/v1/query?query=" + url.QueryEscape(q))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", q, err)
	}
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	err = json.Unmarshal([]byte(body), &answer)
	return len(answer.Data.Result), err
}

// has returns nil once a query has a result.
func (p *prometheus) has(q string) func() error {
	return func() error {
		n, err := p.query(q)
		if err == nil && n == 0 {
			err = fmt.Errorf("%s has no result", q)
		}
		return err
	}
}

// watch starts Prometheus and Alertmanager.
func watch(t *testing.T, odx, hook string) *prometheus {
	t.Helper()
	program := harness.Program(t, "prometheus", "prometheus")
	manager := harness.Program(t, "prometheus-alertmanager", "prometheus-alertmanager")
	dir := t.TempDir()
	rules, err := filepath.Abs(contrib + "/prometheus/odx.rules.yml")
	harness.Must(t, err)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		harness.Must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	alerts, web := free(t), free(t)
	daemon(t, manager, "--config.file="+write("alertmanager.yml", `
route: {receiver: test, group_wait: 1s, group_interval: 1s, repeat_interval: 1h, group_by: [alertname]}
receivers:
  - name: test
    webhook_configs: [{url: "`+hook+`", send_resolved: true}]
`), "--storage.path="+filepath.Join(dir, "alertmanager"), "--web.listen-address="+alerts, "--cluster.listen-address=")
	daemon(t, program, "--config.file="+write("prometheus.yml", `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: odx
    static_configs: [{targets: ["`+odx+`"]}]
rule_files: ["`+rules+`"]
alerting: {alertmanagers: [{static_configs: [{targets: ["`+alerts+`"]}]}]}
`), "--storage.tsdb.path="+filepath.Join(dir, "prometheus"), "--web.listen-address="+web)
	p := &prometheus{"http://" + web}
	until(t, "Prometheus scrapes odx", p.has(`up{job="odx"} == 1`))
	return p
}

// TestPrometheus: a store that is filled becomes an alert, by way of Prometheus and
// Alertmanager and by odx itself, and ends when there is room again. Every rule and every
// query of the dashboard is one that Prometheus evaluates.
func TestPrometheus(t *testing.T) {
	harness.RequireODX(t)
	byManager, managerHook := webhook(t)
	byODX, hook := webhook(t)
	address := free(t)
	target := harness.ServeWith(t, kit.Settings{File: map[string]any{
		"metrics": map[string]string{"listen": address},
		"alerts":  []any{map[string]string{"name": "test", "url": hook}},
		"store":   map[string]string{"capacity": "256MiB"},
	}}, kit.LUN{Size: 1 << 30})
	p := watch(t, address, managerHook)
	disk := harness.Open(t, harness.Client(t), target.URL(0))
	until(t, "a session is scraped", p.has(`odx_sessions == 1`))

	fill(t, disk)
	until(t, "Alertmanager posts that the store is full", func() error { return byManager.had("OdxStoreFull", "firing") })
	until(t, "odx posts that the store is full", func() error { return byODX.had("OdxStoreFull", "firing") })
	until(t, "writes are scraped", p.has(`odx_lun_bytes_total{kind="write"} > 2e8`))
	until(t, "refused writes are scraped", p.has(`odx_lun_errors_total{kind="write"} > 0`))
	if code := status(t, "http://"+address+"/readyz"); code != http.StatusOK {
		t.Errorf("a full store is not ready: %d", code)
	}
	t.Run("rules", func(t *testing.T) { rulesHealthy(t, p) })
	t.Run("dashboard", func(t *testing.T) { dashboard(t, p) })

	unmap(t, disk)
	until(t, "Alertmanager posts that there is room", func() error { return byManager.had("OdxStoreFull", "firing", "resolved") })
	if n, err := p.query(`ALERTS{alertname!~"OdxStore.*",alertstate="firing"}`); err != nil || n != 0 {
		t.Errorf("%d other alerts: %v", n, err)
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	harness.Must(t, err)
	res.Body.Close()
	return res.StatusCode
}

const piece = 1 << 20

// fill writes until the store refuses new data.
func fill(t *testing.T, disk *tokenclient.Session) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{18})
	p := make([]byte, piece)
	for at := uint64(0); at < 1<<30/piece; at++ {
		random.Read(p)
		a, err := again(func() (tokenclient.Answer, error) {
			return disk.Write(bytes.NewReader(p), at*piece/512, piece/512, tokenclient.WriteOptions{})
		})
		harness.Must(t, err)
		if !a.Good() {
			if a.Sense.Key != 7 { // DATA PROTECT
				t.Fatalf("write to a full store: %v", a)
			}
			return
		}
	}
	t.Fatal("the store never was full")
}

// again repeats a command that ends with a unit attention, of the soft threshold here.
func again(send func() (tokenclient.Answer, error)) (tokenclient.Answer, error) {
	for {
		a, err := send()
		if err != nil || a.Status != tokenclient.CheckCondition || a.Sense.Key != 6 {
			return a, err
		}
	}
}

// unmap unmaps the disk.
func unmap(t *testing.T, disk *tokenclient.Session) {
	t.Helper()
	const step = 32 << 20
	for at := 0; at < 1<<30; at += step {
		list := make([]byte, 24)
		binary.BigEndian.PutUint16(list, 22)
		binary.BigEndian.PutUint16(list[2:], 16)
		binary.BigEndian.PutUint64(list[8:], uint64(at/512))
		binary.BigEndian.PutUint32(list[16:], step/512)
		a, err := again(func() (tokenclient.Answer, error) {
			return disk.Command([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
		})
		if err != nil || !a.Good() {
			t.Fatalf("UNMAP: %v, %v", a, err)
		}
	}
}

// rulesHealthy fails for a rule that Prometheus cannot evaluate.
func rulesHealthy(t *testing.T, p *prometheus) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	until(t, "all rules are evaluated", func() error {
		if err := json.Unmarshal([]byte(get(t, p.base+"/api/v1/rules")), &answer); err != nil {
			return err
		}
		count := 0
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if count++; r.Health != "ok" {
					return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if count < 10 {
			return fmt.Errorf("%d rules", count)
		}
		return nil
	})
}

// The variables of the dashboard.
var variables = regexp.MustCompile(`\$\{?(instance|medium|__rate_interval)\}?`)

// dashboard fails for a query that Prometheus does not accept, and for a panel without any
// series, but for those of what did not happen.
func dashboard(t *testing.T, p *prometheus) {
	text, err := os.ReadFile(contrib + "/grafana/odx.json")
	harness.Must(t, err)
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	harness.Must(t, json.Unmarshal(text, &d))
	for _, panel := range d.Panels {
		series := 0
		for _, q := range panel.Targets {
			query := variables.ReplaceAllStringFunc(q.Expr, func(v string) string {
				if strings.Contains(v, "rate") {
					return "30s"
				}
				return ".*"
			})
			n, err := p.query(query)
			if err != nil {
				t.Errorf("panel %q: %v", panel.Title, err)
			}
			series += n
		}
		if len(panel.Targets) > 0 && series == 0 {
			t.Errorf("panel %q shows nothing", panel.Title)
		}
	}
}
