package backstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
)

// scrubRecord is the key of the record that says when the store was scrubbed last.
const scrubRecord = "store/scrub"

const scrubRecordVersion = 1

// LastScrub says what the last scrub that the store began by itself, or was asked
// for and ended, has found.
type LastScrub struct {
	// Ended is when; zero: there was none yet.
	Ended time.Time
	// Since is from when on the next one is counted; zero: nothing is known.
	Since       time.Time
	Took        string
	ReadBytes   int64
	Damaged     int
	MendedBytes int64
	LostRows    int // parts of the metadata
}

// storedScrub is the record of LastScrub. It is durable: another name here loses what
// stores have.
type storedScrub struct {
	Version     int       `json:"version"`
	Ended       time.Time `json:"ended"`
	Since       time.Time `json:"since"`
	Took        string    `json:"took,omitempty"`
	ReadBytes   int64     `json:"read_bytes"`
	Damaged     int       `json:"damaged_extents"`
	MendedBytes int64     `json:"mended_bytes"`
	LostRows    int       `json:"lost_metadata"`
}

// encode returns the record.
func (l LastScrub) encode() ([]byte, error) {
	return json.Marshal(storedScrub{scrubRecordVersion, l.Ended, l.Since, l.Took, l.ReadBytes, l.Damaged, l.MendedBytes, l.LostRows})
}

// decodeScrub reads a record; ok is false for one of a later version.
func decodeScrub(value []byte) (last LastScrub, ok bool, err error) {
	var r storedScrub
	if err := json.Unmarshal(value, &r); err != nil || r.Version != scrubRecordVersion {
		return last, false, err
	}
	return LastScrub{r.Ended, r.Since, r.Took, r.ReadBytes, r.Damaged, r.MendedBytes, r.LostRows}, true, nil
}

// LastScrub returns it; ok is false when nothing is known, of a record of a later
// version for example: the next one replaces it.
func (s *Store) LastScrub() (last LastScrub, ok bool, err error) {
	value, err := s.GetRecord([]byte(scrubRecord))
	if errors.Is(err, ErrNotFound) {
		return last, false, nil
	}
	if err != nil {
		return last, false, err
	}
	return decodeScrub(value)
}

func (s *Store) noteScrub(ctx context.Context, last LastScrub) error {
	value, err := last.encode()
	if err != nil {
		return err
	}
	return s.PutRecords(ctx, Record{Key: []byte(scrubRecord), Value: value})
}

// noteScrubbed stores that a scrub has ended.
func (s *Store) noteScrubbed(ctx context.Context, r ScrubResult, took time.Duration) {
	now := time.Now().UTC().Truncate(time.Second)
	err := s.noteScrub(ctx, LastScrub{
		Ended: now, Since: now, Took: took.Round(time.Second).String(), ReadBytes: r.ReadBytes,
		Damaged: r.Damaged, MendedBytes: r.MendedBytes, LostRows: len(r.Metadata),
	})
	if err != nil && ctx.Err() == nil {
		s.log.WithError(err).Warn("it could not be stored that the store was scrubbed")
	}
}

// scrubLoop scrubs the store again and again until ctx ends.
func (s *Store) scrubLoop(ctx context.Context) {
	if s.opts.ScrubEvery == 0 {
		return
	}
	for {
		last, ok, err := s.LastScrub()
		if err == nil && !ok {
			last.Since = time.Now().UTC().Truncate(time.Second)
			err = s.noteScrub(ctx, last)
		}
		wait := time.Until(last.Since.Add(s.opts.ScrubEvery))
		if err != nil {
			s.log.WithError(err).Warn("when the store was scrubbed last cannot be read or stored")
			wait = s.opts.ScrubEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := s.scheduledScrub(ctx); err != nil && ctx.Err() == nil {
			s.log.WithError(err).Warn("scrubbing stopped; it is tried again an hour later")
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// scheduledScrub scrubs within the budget.
func (s *Store) scheduledScrub(ctx context.Context) error {
	start := time.Now()
	s.log.Info("scrubbing the store")
	r, err := s.Scrub(ctx, ScrubOptions{BytesPerSecond: s.opts.ScrubBytesPerSecond})
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
	entry.Error(fmt.Sprintf("the store was scrubbed: there is damage that no copy mends; odx store scrub names it%s", s.firstUse(r)))
	return nil
}

// firstUse says which volume shows the first damaged extent.
func (s *Store) firstUse(r ScrubResult) string {
	for _, d := range r.Damages {
		for _, u := range d.Uses {
			return fmt.Sprintf(", for example in %v", u)
		}
	}
	return ""
}
