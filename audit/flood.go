package audit

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// floodRate and floodBurst bound the lines about changes that initiators make, of all
	// of them together: so many a second, and so many at once. Initiators need not be
	// authenticated, and must not push the lines of others out of the file.
	floodRate  = 1
	floodBurst = 500
	// maxFlood bounds the initiators and changes that are counted apart beyond that.
	maxFlood = 32
)

// flood counts the changes of initiators beyond their bound.
type flood struct {
	lines *rate.Limiter
	sums  map[floodKey]*sum
}

// floodKey is who has changed what; the one for too many others has no name.
type floodKey struct {
	actor Actor
	what  string
}

func newFlood() flood {
	return flood{rate.NewLimiter(floodRate, floodBurst), map[floodKey]*sum{}}
}

// takes reports whether a change is counted here, and has no line of its own. The caller
// holds the mutex of the Log.
func (f *flood) takes(a Actor, c *Change) bool {
	if a.Kind != Scsi || f.lines.Allow() {
		return false
	}
	key := floodKey{a, c.What}
	s := f.sums[key]
	if s == nil && len(f.sums) >= maxFlood {
		key = floodKey{Actor{Kind: Scsi}, "changes of other initiators"}
		s = f.sums[key]
	}
	if s == nil {
		s = &sum{since: time.Now()}
		f.sums[key] = s
	}
	s.add(0, c.Err != nil)
	return true
}

// take returns a line for each sum, and forgets them.
func (f *flood) take() (lines []*record) {
	for key, s := range f.sums {
		lines = append(lines, s.record(key.actor, &Change{What: key.what}))
	}
	clear(f.sums)
	return lines
}
