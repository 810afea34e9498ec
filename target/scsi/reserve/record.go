package reserve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"odx/target/scsi/nexus"
	"odx/target/scsi/record"
)

// recordKey is the key of the persistent reservations that survive a loss of power, for
// initiators that request it (APTPL).
const recordKey = "reservations"

// RecordKey is the key of persistent reservations, durable and current ones, for what copies
// them to another server.
const RecordKey = recordKey

// keptVersion is the version of the record below.
const keptVersion = 1

// keptState is the stored form of a state. It is durable: renaming a field loses the
// reservations of stores. PRGENERATION is not part of it: power on sets it to zero
// (SPC-4 r37 6.15.2).
type keptState struct {
	Version       int                `json:"version"`
	Type          Type               `json:"type,omitempty"`
	Holder        *keptNexus         `json:"holder,omitempty"`
	Registrations []keptRegistration `json:"registrations"`
}

type keptRegistration struct {
	Key   uint64    `json:"key"`
	Nexus keptNexus `json:"nexus"`
}

type keptNexus struct {
	InitiatorName        string  `json:"initiator"`
	ISID                 [6]byte `json:"isid"`
	TargetName           string  `json:"target"`
	TargetPortalGroupTag uint16  `json:"portal_group_tag"`
}

// encode returns the record of s, or nil if s need not survive a loss of power.
func (s *state) encode() ([]byte, error) {
	if !s.aptpl || len(s.registrations) == 0 {
		return nil, nil
	}
	k, err := s.keep()
	if err != nil {
		return nil, err
	}
	return json.Marshal(k)
}

// keep returns the stored form of s.
func (s *state) keep() (*keptState, error) {
	k := &keptState{Version: keptVersion, Type: s.kind}
	if s.kind != 0 && !s.kind.allRegistrants() {
		h := keptNexus(s.holder)
		k.Holder = &h
	}
	for _, r := range s.registrations {
		if !utf8.ValidString(r.nexus.InitiatorName) {
			return nil, fmt.Errorf("initiator name %q: not UTF-8, cannot be stored", r.nexus.InitiatorName)
		}
		k.Registrations = append(k.Registrations, keptRegistration{r.key, keptNexus(r.nexus)})
	}
	return k, nil
}

// decode reads a record.
func decode(data []byte) (*state, error) {
	if len(data) == 0 {
		return new(state), nil
	}
	var k keptState
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	s, err := k.state()
	if err != nil {
		return nil, err
	}
	if len(s.registrations) == 0 {
		return nil, errors.New("no registrations")
	}
	s.aptpl = true
	return s, nil
}

// state checks k and returns what it is the stored form of.
func (k *keptState) state() (*state, error) {
	if k.Version != keptVersion {
		return nil, fmt.Errorf("version %d, not %d; use a version of odx that reads it", k.Version, keptVersion)
	}
	s := &state{kind: k.Type}
	for _, r := range k.Registrations {
		if r.Key == 0 || s.find(nexus.ID(r.Nexus)) >= 0 || len(s.registrations) == MaxRegistrations {
			return nil, errors.New("registrations without a key, duplicate, or above the limit")
		}
		s.registrations = append(s.registrations, registration{nexus.ID(r.Nexus), r.Key})
	}
	if k.Holder != nil {
		s.holder = nexus.ID(*k.Holder)
	}
	switch {
	case s.kind != 0 && (len(s.registrations) == 0 || !s.kind.valid()):
		return nil, fmt.Errorf("type %d with %d registrations", s.kind, len(s.registrations))
	case (s.kind != 0 && !s.kind.allRegistrants()) != (k.Holder != nil), k.Holder != nil && s.find(s.holder) < 0:
		return nil, errors.New("holder missing or not registered")
	}
	return s, nil
}

// load returns the state that survived a loss of power.
func load(records record.Store) (*state, error) {
	data, err := records.Load(recordKey)
	if err != nil {
		return nil, fmt.Errorf("persistent reservations: %w", err)
	}
	s, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("record of the persistent reservations: %w", err)
	}
	return s, nil
}

// keepDurable makes next durable if required, before any command sees it.
func keepDurable(ctx context.Context, records record.Store, old, next *state) error {
	if old.equal(next) {
		return ctx.Err()
	}
	before, err := old.encode()
	if err != nil {
		return err
	}
	after, err := next.encode()
	if err != nil || before == nil && after == nil {
		return errors.Join(err, ctx.Err())
	}
	if err = records.Save(ctx, recordKey, after); err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	// Either state can be stored now. The status reports that nothing has changed, so a
	// restart must find the old state.
	if undo := records.Save(context.WithoutCancel(ctx), recordKey, before); undo != nil {
		err = fmt.Errorf("%w; previous state not restored: %w", err, undo)
	}
	return err
}
