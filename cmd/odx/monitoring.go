package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/alerts"
	"odx/api"
	"odx/conf"
	"odx/metrics"
	"odx/monitor"
	"odx/standby"
	"odx/target"
)

// monitoring shows a service to others: metrics, health, alerts, and its progress to systemd.
type monitoring struct {
	service  *target.Service
	log      *logrus.Entry
	sampler  *monitor.Sampler
	progress *monitor.Progress
	notifier *alerts.Notifier
	handler  http.Handler // of what needs no secret at metrics.listen

	stop    context.CancelFunc // ends running; nil before that
	running sync.WaitGroup
	leaving sync.WaitGroup // of servers that a reload has replaced

	mu   sync.Mutex // guards page
	page *page      // nil where there is none
}

// page is what listens at metrics.listen.
type page struct {
	listen string // in the words of the configuration
	l      net.Listener
	server *monitor.Server
}

// newMonitoring returns the monitoring of a service, which does nothing yet.
func newMonitoring(service *target.Service, log *logrus.Entry) *monitoring {
	m := &monitoring{service: service, log: log, sampler: monitor.NewSampler(service.Admin())}
	m.progress = &monitor.Progress{Check: service.CheckProgress, Every: progressInterval(), Passed: func() { notifyWatchdog(log) }}
	m.notifier = alerts.NewNotifier(alerts.Options{Status: m.sampler.Status, Instance: hostName(), Log: log})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.NewHandler(m.sampler, metrics.Version{Version: buildVersion(), Go: runtime.Version()}, log))
	mux.Handle("GET /livez", monitor.Live(m.progress))
	mux.Handle("GET /readyz", monitor.Ready(m.sampler))
	m.handler = mux
	return m
}

// hostName returns the name of this machine, by which alerts name it.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "odx"
	}
	return name
}

// mounted returns what the API serves of it.
func (m *monitoring) mounted() []api.Mounted {
	list := []api.Mounted{
		{Pattern: "/debug/pprof/", Role: conf.RoleAdminister, Handler: patient(pprof.Index)},
		{Pattern: "/debug/pprof/profile", Role: conf.RoleAdminister, Handler: patient(pprof.Profile)},
		{Pattern: "/debug/pprof/trace", Role: conf.RoleAdminister, Handler: patient(pprof.Trace)},
	}
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		list = append(list, api.Mounted{Pattern: "GET " + path, Role: conf.RoleRead, Handler: m.handler})
	}
	return list
}

// patient lets a request take longer than the API gives it: a profile is taken for as long
// as its caller wants.
func patient(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		h(w, req)
	})
}

// bind binds what the configuration says, and reads the secrets of webhooks. held are the
// sockets of the server before this one.
func (m *monitoring) bind(held *standby.Held) error {
	cfg := m.service.Configuration()
	hooks, warnings, err := webhooks(cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		m.log.Warn(w)
	}
	m.notifier.SetWebhooks(hooks)
	m.page, err = m.listen(cfg, held.Listen)
	return err
}

// begin serves what was bound, and watches the service until close.
func (m *monitoring) begin() {
	m.show(m.page)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.running.Go(func() { m.progress.Run(ctx) })
	m.running.Go(func() { m.notifier.Run(ctx) })
}

// webhooks returns the webhooks of a configuration. Errors are conf.Problems.
func webhooks(cfg *conf.Config) (list []alerts.Webhook, warnings []string, err error) {
	var problems conf.Problems
	for i, a := range cfg.Alerts {
		at, err := a.Target()
		if err != nil {
			problems = append(problems, cfg.Problem(fmt.Sprintf("alerts[%d].url", i), "webhook %s: %v", a.Name, err))
		}
		w := alerts.Webhook{Name: a.Name, URL: at}
		if a.Secret.Given() {
			secret, warning, err := a.Secret.Read()
			if err != nil {
				problems = append(problems, cfg.Problem(a.Secret.Key, "webhook %s: %v", a.Name, err))
			}
			if w.Token = string(secret); warning != "" {
				warnings = append(warnings, cfg.Problem(a.Secret.Key, "webhook %s: %s", a.Name, warning).Error())
			}
		}
		list = append(list, w)
	}
	if problems != nil {
		return nil, nil, problems
	}
	return list, warnings, nil
}

// listen binds what the configuration says; nil for nothing.
func (m *monitoring) listen(cfg *conf.Config, bind func(ctx context.Context, network, address string) (net.Listener, error)) (*page, error) {
	if cfg.Metrics.Listen == "" {
		return nil, nil
	}
	l, err := bind(context.Background(), "tcp", cfg.Metrics.Listen)
	if err != nil {
		return nil, cfg.Problem("metrics.listen", "%v", err)
	}
	return &page{listen: cfg.Metrics.Listen, l: l, server: monitor.NewServer(m.handler, m.log)}, nil
}

// show serves what was bound.
func (m *monitoring) show(p *page) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.page = p; p == nil {
		return
	}
	m.service.OfferStandbys("tcp", p.listen, p.l)
	m.log.WithField("address", p.l.Addr()).Info("metrics and health are served")
	go p.server.Serve(p.l) // Shutdown waits for it
}

// follow prepares a reload: another address, other webhooks.
func (m *monitoring) follow(next *conf.Config) (target.Prepared, error) {
	hooks, warnings, err := webhooks(next)
	if err != nil {
		return target.Prepared{}, err
	}
	p := target.Prepared{Warnings: warnings, Undo: func() {}, Commit: func() { m.notifier.SetWebhooks(hooks) }}
	m.mu.Lock()
	now := m.page
	m.mu.Unlock()
	if now == nil && next.Metrics.Listen == "" || now != nil && now.listen == next.Metrics.Listen {
		return p, nil
	}
	var config net.ListenConfig
	bound, err := m.listen(next, config.Listen)
	if err != nil {
		return target.Prepared{}, err
	}
	p.Commit = func() {
		m.notifier.SetWebhooks(hooks)
		m.hide(now)
		m.show(bound)
	}
	p.Undo = func() {
		if bound != nil {
			bound.l.Close()
		}
	}
	return p, nil
}

// hide ends what listens at an address that a reload has replaced.
func (m *monitoring) hide(p *page) {
	if p == nil {
		return
	}
	m.service.WithdrawSocket("tcp", p.listen)
	m.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		if err := p.server.Shutdown(ctx); err != nil {
			m.log.WithError(err).Warn("requests for metrics ended, since they are no longer served there")
		}
	})
}

// close ends it; requests, and what reads figures of a store that stalls, may finish until
// ctx ends.
func (m *monitoring) close(ctx context.Context) error {
	m.stop()
	m.running.Wait()
	m.mu.Lock()
	p := m.page
	m.mu.Unlock()
	var err error
	if p != nil {
		err = p.server.Shutdown(ctx)
	}
	m.leaving.Wait()
	return errors.Join(err, m.sampler.Close(ctx))
}

// The intervals of checks of progress: the longest, and how many there are in the time after
// which systemd replaces a process that reports none.
const (
	longestProgress  = 5 * time.Second
	progressInLimits = 3
)

// progressInterval returns the interval of checks of progress.
func progressInterval() time.Duration {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return longestProgress
	}
	return min(longestProgress, limit/progressInLimits)
}

// notifyWatchdog reports progress to systemd, if it has asked for that.
func notifyWatchdog(log *logrus.Entry) {
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil && limit > 0 {
		notify(log, daemon.SdNotifyWatchdog)
	}
}

// forgetWatchdogPID makes the watchdog of the process before this one this one's: systemd
// has named that process in the environment.
func forgetWatchdogPID() { _ = os.Unsetenv("WATCHDOG_PID") }

// reportAlive reports progress to systemd, until stop is called, of a process without a store that
// it could check: a standby, which waits, and then opens it; a node, whose servers have the stores.
func reportAlive(log *logrus.Entry) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	p := monitor.Progress{Check: func() {}, Every: progressInterval(), Passed: func() { notifyWatchdog(log) }}
	var reporting sync.WaitGroup
	reporting.Go(func() { p.Run(ctx) })
	return func() {
		cancel()
		reporting.Wait()
	}
}
