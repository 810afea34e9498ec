package backstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/scrubplan"
)

// LastScrub is scrubplan.Last.
type LastScrub = scrubplan.Last

// LastScrub returns what the last scrub found; ok is false when nothing is known, of a
// record of a later version for example: the next one replaces it.
func (s *Store) LastScrub() (last LastScrub, ok bool, err error) { return s.scrubs.Last() }

// planRecords are the records of a store as a plan of scrubs needs them.
type planRecords struct{ s *Store }

// Get implements scrubplan.Records.
func (r planRecords) Get(key []byte) ([]byte, error) {
	value, err := r.s.GetRecord(key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return value, err
}

// Put implements scrubplan.Records.
func (r planRecords) Put(ctx context.Context, key, value []byte) error {
	return r.s.PutRecords(ctx, Record{Key: key, Value: value})
}

// scheduledScrub scrubs within the budget.
func (s *Store) scheduledScrub(ctx context.Context) error {
	start := time.Now()
	s.log.Info("scrubbing the store")
	r, err := s.Scrub(ctx, ScrubOptions{BytesPerSecond: s.scrubRate.Load()})
	if err != nil {
		return err
	}
	entry := s.log.WithFields(logrus.Fields{
		"read_bytes": r.ReadBytes, "damaged_extents": r.Damaged, "mended_bytes": r.MendedBytes,
		"lost_metadata": len(r.Metadata), "took": time.Since(start).Round(time.Second),
	})
	if r.Damaged+len(r.Metadata) == 0 {
		entry.Info("the store was scrubbed")
		return nil
	}
	entry.Error(fmt.Sprintf("the store was scrubbed: there is damage that no copy mends; odx store scrub names it%s", r.firstUse()))
	return nil
}

// firstUse says which volume shows the first damaged extent.
func (r *ScrubResult) firstUse() string {
	for _, d := range r.Damages {
		for _, u := range d.Uses {
			return fmt.Sprintf(", for example in %v", u)
		}
	}
	return ""
}
