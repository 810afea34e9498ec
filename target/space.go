package target

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/sirupsen/logrus"

	"odx/target/scsi"
)

const (
	// spacePeriod is the interval of measurements, and spacePeriodNear that above
	// spaceNear of the soft threshold, so that the warning precedes the first failing
	// write.
	spacePeriod     = time.Second
	spacePeriodNear = 50 * time.Millisecond
	spaceNear       = 0.75
	// spaceRearm is how far, as a part of the total, the use has to fall below the soft
	// threshold before the next warning.
	spaceRearm = 0.01
)

// spaceWatch measures the use of a store, reports it to initiators, and warns them when
// it rises above the soft threshold.
type spaceWatch struct {
	// live returns the bytes of data in the store, without waiting.
	live func() int64
	// measure returns the bytes that still fit.
	measure func() (int64, error)
	log     *logrus.Entry
	// total is the capacity of the store when the watch began, in bytes; threshold is
	// the part of it at which to warn, 0 for no warning.
	total     int64
	threshold atomic.Int64
	left      atomic.Int64
	warned    bool // since the use was below the threshold
}

// newSpaceWatch returns a watch over a store with a soft threshold in per cent.
func newSpaceWatch(live func() int64, percent int, measure func() (int64, error), log *logrus.Entry) (*spaceWatch, error) {
	left, err := measure()
	if err != nil {
		return nil, err
	}
	w := &spaceWatch{live: live, measure: measure, log: log, total: live() + left}
	w.warnAt(percent)
	w.left.Store(left)
	return w, nil
}

// warnAt sets the soft threshold in per cent. It returns it in bytes.
func (w *spaceWatch) warnAt(percent int) int64 {
	at := int64(float64(w.total) * float64(percent) / 100)
	w.threshold.Store(at)
	return at
}

// space describes the store to a logical unit.
func (w *spaceWatch) space() scsi.Space {
	return scsi.Space{SoftThreshold: w.threshold.Load(), Usage: w.usage}
}

// usage returns, for initiators, how many bytes are live and how many fit now. Dead
// data that is not cleaned yet is neither.
func (w *spaceWatch) usage() (used, left int64) {
	if left, err := w.measure(); err == nil {
		w.left.Store(left)
	}
	return w.live(), min(w.left.Load(), w.total)
}

// occupied returns how many bytes of total are not free, whatever takes them.
func (w *spaceWatch) occupied() int64 { return w.total - min(w.left.Load(), w.total) }

// goOn begins where the watch of the service before this one ended: it has warned the
// initiators that go on of a threshold that was reached. It precedes run.
func (w *spaceWatch) goOn() {
	at := w.threshold.Load()
	w.warned = at > 0 && w.occupied() >= at
}

// run measures until ctx ends. While the use is above the threshold, it calls relieve
// with the excess in bytes.
func (w *spaceWatch) run(ctx context.Context, warn func(), relieve func(need int64)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		w.look(warn)
		if used, at := w.occupied(), w.threshold.Load(); at > 0 && used >= at {
			relieve(used - at + 1)
		}
		timer.Reset(w.period())
	}
}

// period returns the time until the next measurement.
func (w *spaceWatch) period() time.Duration {
	if used, at := w.occupied(), w.threshold.Load(); at > 0 && used < at && float64(used) >= spaceNear*float64(at) {
		return spacePeriodNear
	}
	return spacePeriod
}

// look measures, and calls warn once each time the use rises above the threshold.
func (w *spaceWatch) look(warn func()) {
	left, err := w.measure()
	if err != nil {
		return // the store reports it itself
	}
	w.left.Store(left)
	used, at := w.occupied(), w.threshold.Load()
	switch {
	case at == 0:
	case used >= at && !w.warned:
		w.warned = true
		warn()
		w.log.WithFields(logrus.Fields{
			"used": humanize.IBytes(uint64(used)), "left": humanize.IBytes(uint64(left)), "soft_threshold": humanize.IBytes(uint64(at)),
		}).Warn("store above the soft threshold; initiators are warned")
	case used < at-int64(float64(w.total)*spaceRearm):
		w.warned = false
	}
}
