package copymgr

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Bounds of the log of refused commands: an initiator that asks in a loop for
// what it does not get must not fill a disk.
const (
	refusalsAtOnce  = 20
	refusalInterval = time.Second // one line more after each
)

// refusalLog writes a line for each refused command, but only so many; the next
// line says how many are missing. The zero value is ready.
type refusalLog struct {
	mu         sync.Mutex // guards what follows
	lines      int        // that may be written now
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

// take decides on one line: whether it may be written, and how many were not
// since the last.
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
