package audit

import (
	"context"
	"time"
)

// maxSums bounds what is summed up at a time; changes beyond it are lines of their own.
const maxSums = 1024

// sumKey is what changes have in common that are summed up.
type sumKey struct {
	actor         Actor
	what, subject string
}

// sum counts changes since a line was written about them.
type sum struct {
	since            time.Time
	requests, failed int
	bytes            int64
}

// Sum is Record for changes of which there are too many for a line each, such as writes of
// data; bytes is how much this one changed. The first by an actor to a subject is a line;
// those of the SumPeriod after it are one line together, at its end.
func (l *Log) Sum(ctx context.Context, c Change, bytes int64) {
	a := From(ctx)
	if !l.add(sumKey{a, c.What, c.Subject}, bytes, c.Err != nil) {
		r := newRecord(a, &c)
		r.Requests, r.Bytes = 1, bytes
		l.write(r)
	}
}

// add adds a change to a sum; false if there is none yet.
func (l *Log) add(key sumKey, bytes int64, failed bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sums[key]
	if s == nil {
		if len(l.sums) < maxSums {
			l.sums[key] = &sum{since: time.Now()}
		}
		return false
	}
	s.add(bytes, failed)
	return true
}

func (s *sum) add(bytes int64, failed bool) {
	s.requests++
	s.bytes += bytes
	if failed {
		s.failed++
	}
}

// record returns the line of a sum.
func (s *sum) record(a Actor, c *Change) *record {
	r := newRecord(a, c)
	r.Requests, r.Failed, r.Bytes, r.Since = s.requests, s.failed, s.bytes, s.since.UTC()
	return r
}

// writeSums writes a line for each sum, and forgets those that nothing was added to.
func (l *Log) writeSums(f *file) {
	for _, r := range l.takeSums() {
		l.show(r)
		l.take(f, item{line: r.line()})
	}
}

func (l *Log) takeSums() (lines []*record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, s := range l.sums {
		if s.requests == 0 {
			delete(l.sums, key)
			continue
		}
		lines = append(lines, s.record(key.actor, &Change{What: key.what, Subject: key.subject}))
		*s = sum{since: time.Now()}
	}
	return append(lines, l.flood.take()...)
}
