package reserve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"odx/target/scsi/record"
)

// currentVersion is the version of the record below.
const currentVersion = 1

// currentState is the stored form of a whole state, for the process that takes over from
// this one: initiators go on with what they know, PRGENERATION and registrations without
// APTPL included. Its key is recordKey.
type currentState struct {
	Version    int       `json:"version"`
	Generation uint32    `json:"generation"`
	APTPL      bool      `json:"aptpl,omitempty"`
	State      keptState `json:"state"`
}

// encodeCurrent returns the record of s; nil for the state after power on.
func (s *state) encodeCurrent() ([]byte, error) {
	if s.generation == 0 && s.equal(new(state)) {
		return nil, nil
	}
	k, err := s.keep()
	if err != nil {
		return nil, err
	}
	return json.Marshal(currentState{Version: currentVersion, Generation: s.generation, APTPL: s.aptpl, State: *k})
}

// decodeCurrent reads a record of encodeCurrent.
func decodeCurrent(data []byte) (*state, error) {
	var c currentState
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c.Version != currentVersion {
		return nil, fmt.Errorf("version %d, not %d; use a version of odx that reads it", c.Version, currentVersion)
	}
	s, err := c.State.state()
	if err != nil {
		return nil, err
	}
	s.generation, s.aptpl = c.Generation, c.APTPL
	return s, nil
}

// loadCurrent returns the state that the process before this one left in era, else the
// durable one. A process can end after it has stored the current state of a command and
// before the durable one. It has not answered the command then, but a nexus may have
// seen its effect, so the durable state has to follow.
func loadCurrent(records, era record.Store) (*state, error) {
	data, err := era.Load(recordKey)
	if err != nil {
		return nil, fmt.Errorf("current persistent reservations: %w", err)
	}
	if data == nil {
		return load(records)
	}
	s, err := decodeCurrent(data)
	if err != nil {
		return nil, fmt.Errorf("record of the current persistent reservations: %w", err)
	}
	stored, err := records.Load(recordKey)
	if err != nil {
		return nil, fmt.Errorf("persistent reservations: %w", err)
	}
	wanted, err := s.encode()
	if err == nil && !bytes.Equal(stored, wanted) {
		err = records.Save(context.Background(), recordKey, wanted)
	}
	return s, err
}

// saveCurrent stores s in era.
func saveCurrent(ctx context.Context, era record.Store, s *state) error {
	data, err := s.encodeCurrent()
	if err != nil {
		return err
	}
	return era.Save(ctx, recordKey, data)
}

// keep stores next before any command sees it: the current state first, then, if it
// must survive a loss of power, the durable one; loadCurrent relies on the order.
func (r *Reservations) keep(ctx context.Context, old, next *state) error {
	err := saveCurrent(ctx, r.era, next)
	if err == nil {
		err = keepDurable(ctx, r.durable(), old, next)
	}
	if err == nil {
		return nil
	}
	if undo := saveCurrent(context.WithoutCancel(ctx), r.era, old); undo != nil {
		err = fmt.Errorf("%w; previous current state not restored: %w", err, undo)
	}
	return err
}

// durable returns the records that survive a loss of power, which may store nothing.
func (r *Reservations) durable() record.Store {
	if r.records == nil {
		return record.None{}
	}
	return r.records
}
