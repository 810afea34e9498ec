package backstore

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// Reconfiguration has what of Options can change while a store is open, with the same
// meaning of zero.
type Reconfiguration struct {
	StoreDuplicates     bool
	CleanBytesPerSecond int64
	ScrubEvery          time.Duration
	ScrubBytesPerSecond int64
}

// Reconfigure changes options of the store. A scrub that runs keeps its rate. After an
// error, nothing has changed.
func (s *Store) Reconfigure(r Reconfiguration) error {
	if r.CleanBytesPerSecond < 0 || r.ScrubEvery < 0 || r.ScrubBytesPerSecond < 0 {
		return fmt.Errorf("%w: negative budget, or interval of scrubs", ErrInvalid)
	}
	if r.CleanBytesPerSecond == 0 {
		r.CleanBytesPerSecond = DefaultCleanBytesPerSecond
	}
	if r.ScrubBytesPerSecond == 0 {
		r.ScrubBytesPerSecond = DefaultScrubBytesPerSecond
	}
	s.storeDuplicates.Store(r.StoreDuplicates)
	s.cleaner.budget.SetBurst(int(max(r.CleanBytesPerSecond, cleanBatch)))
	s.cleaner.budget.SetLimit(rate.Limit(r.CleanBytesPerSecond))
	s.scrubRate.Store(r.ScrubBytesPerSecond)
	s.scrubs.SetEvery(r.ScrubEvery)
	return nil
}
