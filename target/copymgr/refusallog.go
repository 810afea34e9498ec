package copymgr

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Bounds of the log of refused commands: an initiator that repeats a refused command
// must not fill a disk.
const (
	refusalsAtOnce  = 20
	refusalInterval = time.Second // one more line per interval
)

// refusalLog writes a line for each refused command up to the bound; the next line has
// the number of suppressed ones. The zero value is ready.
type refusalLog struct {
	mu         sync.Mutex // guards the fields below
	lines      int        // that may still be written
	refilled   time.Time
	suppressed int
}

func (l *refusalLog) log(e *logrus.Entry) {
	missing, ok := l.take(time.Now())
	if !ok {
		return
	}
	if missing > 0 {
		e = e.WithField("suppressed", missing)
	}
	e.Warn("copy command refused")
}

// take reports whether a line may be written, and how many were suppressed since the
// last one.
func (l *refusalLog) take(now time.Time) (missing int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := now.Sub(l.refilled) / refusalInterval; n > 0 {
		l.lines, l.refilled = int(min(time.Duration(l.lines)+n, refusalsAtOnce)), now
	}
	if l.lines == 0 {
		l.suppressed++
		return 0, false
	}
	l.lines--
	missing, l.suppressed = l.suppressed, 0
	return missing, true
}
