// Package metrics has the metrics of a server for Prometheus.
//
// Every metric is a line of a table (see families): name, type, labels, what it means, and
// how it follows from a sample. Names and units follow Prometheus' rules. Labels have values
// of the configuration and of the standards alone, so that no initiator makes series; lists
// that could grow nevertheless are cut (maxValues).
package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"odx/admin"
	"odx/monitor"
)

// maxValues bounds the values of a label that come from counters by name; the rest is
// counted as "other".
const maxValues = 64

// Type is the type of a metric.
type Type string

// The types.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Family is a metric with its labels.
type Family struct {
	Name, Help string
	Type       Type
	Labels     []string

	desc *prometheus.Desc
	// values emits a value for each set of labels of a counter or gauge, durations that of
	// a histogram.
	values    func(s *monitor.Sample, emit func(value float64, labels ...string))
	durations func(s *monitor.Sample, emit func(d *admin.Durations, labels ...string))
}

// Families returns all metrics of a Collector, in the order of the documentation.
func Families() []Family {
	var all []Family
	for _, part := range [][]Family{serverFamilies(), lunFamilies(), copyFamilies(), tokenFamilies(), peerFamilies(), replicaFamilies(), migrationFamilies(), storeFamilies()} {
		all = append(all, part...)
	}
	for i := range all {
		f := &all[i]
		f.desc = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	return all
}

// Collector collects the metrics of a server.
type Collector struct {
	families []Family
	sampler  *monitor.Sampler
}

// NewCollector returns a collector of what a sampler reads.
func NewCollector(s *monitor.Sampler) *Collector { return &Collector{Families(), s} }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for i := range c.families {
		to <- c.families[i].desc
	}
}

// Collect implements prometheus.Collector. A store that does not answer leaves the last
// figures, whose age is odx_figures_timestamp_seconds.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	sample, err := c.sampler.Latest(context.Background())
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.families[0].desc, err)
		return
	}
	for i := range c.families {
		c.families[i].collect(&sample, to)
	}
}

// collect sends the metrics of the family.
func (f *Family) collect(s *monitor.Sample, to chan<- prometheus.Metric) {
	if f.Type == Histogram {
		f.durations(s, func(d *admin.Durations, labels ...string) {
			count, buckets := cumulative(d)
			to <- prometheus.MustNewConstHistogram(f.desc, count, d.Sum.Seconds(), buckets, labels...)
		})
		return
	}
	kind := prometheus.GaugeValue
	if f.Type == Counter {
		kind = prometheus.CounterValue
	}
	f.values(s, func(value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(f.desc, kind, value, labels...)
	})
}

// cumulative returns the number of durations, and how many did not exceed each bound.
func cumulative(d *admin.Durations) (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(d.Bounds))
	for i, n := range d.Counts {
		count += n
		if i < len(d.Bounds) {
			buckets[d.Bounds[i].Seconds()] = count
		}
	}
	return count, buckets
}

// one returns a family without labels.
func one(kind Type, name, help string, value func(*monitor.Sample) float64) Family {
	return Family{Name: name, Help: help, Type: kind, values: func(s *monitor.Sample, emit func(float64, ...string)) { emit(value(s)) }}
}

// truth is one for a value that is 0 or 1.
func truth(name, help string, value func(*monitor.Sample) bool) Family {
	return one(Gauge, name, help, func(s *monitor.Sample) float64 { return number(value(s)) })
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns a time as Prometheus has it, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// counted emits the counters of a map in which the names are no longer bounded by what the
// server knows.
func counted(by map[string]uint64, emit func(float64, ...string)) {
	names, other := 0, uint64(0)
	for _, name := range sorted(by) {
		if names == maxValues {
			other += by[name]
			continue
		}
		names++
		emit(float64(by[name]), name)
	}
	if other > 0 {
		emit(float64(other), "other")
	}
}
