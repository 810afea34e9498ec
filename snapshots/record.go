package snapshots

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"odx/backstore"
)

// Keys of the records: of a snapshot, followed by its identity in hexadecimal, and of a
// policy, followed by its name.
const (
	takenPrefix  = "snapshots/taken/"
	policyPrefix = "snapshots/policy/"
)

// recordVersion is the version of storedTaken and of storedPolicy.
const recordVersion = 1

// identity is that of a volume or a file (backstore.Volume.ID).
type identity [16]byte

// taken is a snapshot that a policy has taken, or is about to.
type taken struct {
	ID     identity
	Policy string
	// Of is what it is a snapshot of.
	Of identity
	// Time is that of the run, and Run its number: the runs of a policy are numbered from 1.
	Time time.Time
	Run  uint64
}

// storedTaken is the record of a snapshot. It is durable: another name here makes snapshots
// those of no policy.
type storedTaken struct {
	Version int       `json:"version"`
	Policy  string    `json:"policy"`
	Of      string    `json:"of"`
	Time    time.Time `json:"time"`
	Run     uint64    `json:"run"`
}

// key returns the key of the record.
func (t *taken) key() []byte { return fmt.Appendf(nil, "%s%x", takenPrefix, t.ID) }

// record returns the record.
func (t *taken) record() backstore.Record {
	value, _ := json.Marshal(storedTaken{recordVersion, t.Policy, hex.EncodeToString(t.Of[:]), t.Time, t.Run}) // plain data cannot fail
	return backstore.Record{Key: t.key(), Value: value}
}

// readTaken reads a record; ok is false for one of a later version.
func readTaken(key, value []byte) (t taken, ok bool, err error) {
	var r storedTaken
	if err := json.Unmarshal(value, &r); err != nil {
		return t, false, fmt.Errorf("%w: record %q: %w", backstore.ErrCorrupt, key, err)
	}
	if r.Version != recordVersion {
		return t, false, nil
	}
	t = taken{Policy: r.Policy, Time: r.Time, Run: r.Run}
	name := strings.TrimPrefix(string(key), takenPrefix)
	if !t.ID.parse(name) || !t.Of.parse(r.Of) || r.Policy == "" {
		return t, false, fmt.Errorf("%w: record %q: an identity or the name of the policy is none", backstore.ErrCorrupt, key)
	}
	return t, true, nil
}

// parse sets an identity in hexadecimal, and reports whether it is one.
func (id *identity) parse(text string) bool {
	n, err := hex.Decode(id[:], []byte(text)[:min(len(text), 2*len(id))])
	return err == nil && n == len(id) && len(text) == 2*len(id)
}

// state is what is known of a policy over a restart.
type state struct {
	// Runs is the number of the last run.
	Runs uint64
	// Last is when the last run began that did all that it was to; at first, when the policy
	// was seen first. Success is the same, but zero at first.
	Last, Success time.Time
	// Failures counts the runs that failed since then, and Error is why the last one did.
	Failures int
	Error    string
	// Underway is a run that has not ended; nil for none.
	Underway *underway
}

// underway is a run that has begun.
type underway struct {
	Run   uint64
	Began time.Time
	// Before: the program that is run before the snapshots may have been started.
	Before bool
	// Together is how many snapshots are to be at one point in time; 0 for no such number.
	Together int
}

// storedPolicy is the record of a policy. It is durable.
type storedPolicy struct {
	Version  int             `json:"version"`
	Runs     uint64          `json:"runs"`
	Last     time.Time       `json:"last"`
	Success  time.Time       `json:"success,omitzero"`
	Failures int             `json:"failures,omitempty"`
	Error    string          `json:"error,omitempty"`
	Underway *storedUnderway `json:"underway,omitempty"`
}

// storedUnderway is a part of storedPolicy.
type storedUnderway struct {
	Run      uint64    `json:"run"`
	Began    time.Time `json:"began"`
	Before   bool      `json:"before,omitempty"`
	Together int       `json:"together,omitempty"`
}

// maxError bounds the error in a record, in bytes.
const maxError = 1024

// record returns the record of a policy.
func (s *state) record(policy string) backstore.Record {
	r := storedPolicy{recordVersion, s.Runs, s.Last, s.Success, s.Failures, s.Error[:min(len(s.Error), maxError)], nil}
	if u := s.Underway; u != nil {
		r.Underway = &storedUnderway{u.Run, u.Began, u.Before, u.Together}
	}
	value, _ := json.Marshal(r) // plain data cannot fail
	return backstore.Record{Key: []byte(policyPrefix + policy), Value: value}
}

// readState reads a record; ok is false for one of a later version.
func readState(key, value []byte) (policy string, s state, ok bool, err error) {
	var r storedPolicy
	if err := json.Unmarshal(value, &r); err != nil {
		return "", s, false, fmt.Errorf("%w: record %q: %w", backstore.ErrCorrupt, key, err)
	}
	s = state{r.Runs, r.Last, r.Success, r.Failures, r.Error, nil}
	if u := r.Underway; u != nil {
		s.Underway = &underway{u.Run, u.Began, u.Before, u.Together}
	}
	return strings.TrimPrefix(string(key), policyPrefix), s, r.Version == recordVersion, nil
}
