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

	// repeatInterval is for how long a refusal is not logged again that an initiator brings
	// about by trying again, until it succeeds, for maxRepeats of them.
	repeatInterval = time.Minute
	maxRepeats     = 64
)

// refusalKey is what refusals have in common of which the first one is logged.
type refusalKey struct {
	initiator, command, volume, sense string
	reason                            string // of BUSY, which asks for another try: none
}

// refusalLog writes a line for each refused command up to the bound, but not for those that
// repeat one; the next line has the number of suppressed ones. The zero value is ready.
type refusalLog struct {
	mu         sync.Mutex // guards the fields below
	lines      int        // that may still be written
	refilled   time.Time
	suppressed int
	logged     map[refusalKey]time.Time
}

// keyOf returns what repeats of a refusal have, too.
func keyOf(r *Refusal) refusalKey {
	k := refusalKey{initiator: r.Initiator, command: r.Command, volume: r.Volume, sense: r.Sense, reason: r.Reason}
	if r.Sense == busyWords {
		k.reason = ""
	}
	return k
}

func (l *refusalLog) log(k refusalKey, e *logrus.Entry) {
	missing, ok := l.take(k, time.Now())
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
func (l *refusalLog) take(k refusalKey, now time.Time) (missing int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := now.Sub(l.refilled) / refusalInterval; n > 0 {
		l.lines, l.refilled = int(min(time.Duration(l.lines)+n, refusalsAtOnce)), now
	}
	if l.lines == 0 || l.repeats(k, now) {
		l.suppressed++
		return 0, false
	}
	l.lines--
	missing, l.suppressed = l.suppressed, 0
	return missing, true
}

// succeeded notes that a command was done: what it is refused for from now on is news.
func (l *refusalLog) succeeded(o origin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.logged {
		if k.initiator == o.nexus.InitiatorName && k.command == o.command && k.volume == o.volume {
			delete(l.logged, k)
		}
	}
}

// repeats reports whether a refusal was logged in the last interval; if not, it is now. mu is
// held.
func (l *refusalLog) repeats(k refusalKey, now time.Time) bool {
	if at, ok := l.logged[k]; ok && now.Sub(at) < repeatInterval {
		return true
	}
	if l.logged == nil {
		l.logged = make(map[refusalKey]time.Time)
	}
	if len(l.logged) >= maxRepeats {
		oldest, first := k, now
		for other, at := range l.logged {
			if at.Before(first) {
				oldest, first = other, at
			}
		}
		delete(l.logged, oldest)
	}
	l.logged[k] = now
	return false
}
