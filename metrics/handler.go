package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"odx/monitor"
)

const (
	// scrapesAtOnce bounds the scrapes that are being answered; others get 503.
	scrapesAtOnce = 4
	// scrapeLimit bounds one, within Prometheus' default of 10 s.
	scrapeLimit = 9 * time.Second
)

// Version says which program serves.
type Version struct{ Version, Go string }

// NewHandler returns the handler of /metrics: those of a server, of its process and of the
// Go runtime. Scrapes that come at the same time share one collection.
func NewHandler(s *monitor.Sampler, v Version, log *logrus.Entry) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		NewCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "odx_build_info", Help: "The program; the value is 1.",
			ConstLabels: prometheus.Labels{"version": v.Version, "go_version": v.Go},
		}, func() float64 { return 1 }),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log}, ErrorHandling: promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeLimit, CoalesceGather: true,
	})
}

// scrapeLog logs failed scrapes.
type scrapeLog struct{ log *logrus.Entry }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) { l.log.Warnln(append([]any{"metrics: "}, v...)...) }
