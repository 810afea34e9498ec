package backstore

import (
	"cmp"
	"context"
	"time"
)

const (
	// defaultSpareTime is longer than it takes from one checkpoint to the next under
	// load.
	defaultSpareTime = 10 * time.Second
	// sparePeriod is how often the store looks for files that waited too long.
	sparePeriod = time.Second
)

// spareLoop gives the space of spare segments back until ctx ends.
func (s *Store) spareLoop(ctx context.Context) {
	tick := time.NewTicker(sparePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if s.lowSpace.Load() {
				continue // what is given up now, another program gets
			}
			s.dropSpares(now.Add(-cmp.Or(s.opts.spareTime, defaultSpareTime)))
		}
	}
}

// dropSpares gives up the spare segments that have waited since before then.
func (s *Store) dropSpares(before time.Time) {
	if err := s.segments.DropSpares(before); err != nil {
		s.log.WithError(err).Warn("a spare segment keeps its space; opening the store finds it again")
	}
}
