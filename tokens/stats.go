package tokens

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
)

// Stats counts tokens. The counters begin at zero when the manager is opened.
type Stats struct {
	Live       int
	Tombstones int
	// PinnedBytes is the sum of the bytes that the snapshots of live tokens stand
	// for. Most of them are in use by volumes, too.
	PinnedBytes int64
	// HeldBytes is what live tokens kept alive that nothing else refers to, when
	// that was measured last.
	HeldBytes int64
	// MemoryBytes is about what live tokens take in memory.
	MemoryBytes int64

	Created   uint64
	Uses      uint64
	Expired   uint64
	Cancelled uint64
	Revoked   uint64
	Deleted   uint64
	// CancelledFor counts the tokens that the manager cancelled, by cause, including
	// those that their users had deleted as a hint.
	CancelledFor map[Cause]uint64
	// Refused counts operations that were refused, by the error in words.
	Refused map[string]uint64
}

// Stats returns the current counts.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Live, s.Tombstones, s.MemoryBytes = len(m.live), len(m.ended.byID), m.memory
	s.CancelledFor, s.Refused = maps.Clone(s.CancelledFor), maps.Clone(s.Refused)
	return s
}

// Cause is why the manager cancelled a token.
type Cause uint8

// The causes.
const (
	TooManyTokens Cause = iota + 1 // a new token took its place
	TooMuchMemory                  // a new token took its memory
	HoldsTooMuch                   // tokens held more bytes than the limit
	OutOfSpace                     // the store needed its space
	Overwritten                    // change vulnerable, and its data was going to change
	DataGone                       // its volume was deleted, or could not be watched again
)

// causeWords are durable, and known to clients of the API.
var causeWords = map[Cause]string{
	TooManyTokens: "too many tokens", TooMuchMemory: "too much memory", HoldsTooMuch: "held too much",
	OutOfSpace: "out of space", Overwritten: "overwritten", DataGone: "data gone",
}

// String returns the cause in words.
func (c Cause) String() string {
	if s, ok := causeWords[c]; ok {
		return s
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// MarshalText returns the words, which tombstones in stores have.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (c *Cause) UnmarshalText(text []byte) error {
	for cause, words := range causeWords {
		if words == string(text) {
			*c = cause
			return nil
		}
	}
	return fmt.Errorf("%w: cause %q", errRecord, text)
}

// countEnd counts the end of a token and logs one that the manager cancelled. A hash
// token has no entry. m.mu is held.
func (m *Manager) countEnd(e *entry, t tombstone) {
	switch t.Reason {
	case Expired:
		m.stats.Expired++
	case Cancelled:
		m.stats.Cancelled++
	case Revoked:
		m.stats.Revoked++
	case Deleted:
		m.stats.Deleted++
	}
	if t.Cause == 0 || e == nil {
		return
	}
	m.stats.CancelledFor[t.Cause]++
	m.log.WithFields(logrus.Fields{
		"token": e.id, "cause": t.Cause.String(), "type": e.rec.Type.String(), "bytes": e.rec.Length,
		"initiator": e.rec.Creator.Initiator, "volume": e.rec.Creator.Volume, "priority": e.rec.Priority,
		"uses": e.rec.Uses, "age": t.Ended.Sub(e.rec.Created).Round(time.Millisecond),
	}).Info("token cancelled")
}

// refusals are the errors by which refused operations are counted.
var refusals = []error{
	ErrInvalidLength, ErrCorrupt, ErrUnsupportedType, ErrRemote, ErrExpired, ErrCancelled, ErrRevoked, ErrDeleted,
	ErrUnknown, ErrAccess, ErrUnmapped, ErrNoResources, ErrTooLong, ErrTimeout, ErrOffset, blockdev.ErrRange,
}

// refused counts an operation that ended with an error before it did anything.
func (m *Manager) refused(err error) {
	word := "failed"
	for _, r := range refusals {
		if errors.Is(err, r) {
			word = r.Error()
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Refused[word]++
}
