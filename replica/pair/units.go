package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore"
)

// What the logical unit of a source keeps comes with each round, so that a failover by force has
// what was known last. At the replica there is a record of each part, as it is at the source,
// under unitsPrefix, the pair, and its name; and one without a name, which says that a round has
// brought them.
const (
	unitsPrefix = "replica/units/"
	// unitsVersion is the value of the record without a name.
	unitsVersion = "1"
	// maxUnitKey bounds the name of a part, in bytes.
	maxUnitKey = 100
)

// Adopted says what a failover has taken along of what the logical unit of the source kept.
type Adopted struct {
	// Dropped is how many registrations were left behind: the LUN here does not have their target
	// port.
	Dropped int
	// Age is how long ago the source had the rest; 0 after a planned failover.
	Age time.Duration
}

// unitsKey returns the key of a part; of the record without a name for nil.
func unitsKey(id ID, u *UnitRecord) []byte {
	key := unitsPrefix + id.String()
	switch {
	case u == nil:
	case u.Era:
		key += "/era/" + u.Key
	default:
		key += "/durable/" + u.Key
	}
	return []byte(key)
}

// knownUnits returns what rounds have brought last; ok is false if none has.
func (m *Manager) knownUnits(id ID) (units []UnitRecord, ok bool, err error) {
	prefix := unitsKey(id, nil)
	err = m.store.ScanRecords(prefix, func(key, value []byte) error {
		kind, name, _ := strings.Cut(strings.TrimPrefix(string(key[len(prefix):]), "/"), "/")
		switch {
		case len(key) > len(prefix):
			units = append(units, UnitRecord{Key: name, Era: kind == "era", Value: bytes.Clone(value)})
		case string(value) == unitsVersion:
			ok = true
		default:
			return fmt.Errorf("%w: reservations from the source, version %.20q", errNewer, value)
		}
		return nil
	})
	return units, ok, err
}

// noteUnits keeps what a round has brought.
func (m *Manager) noteUnits(ctx context.Context, id ID, units []UnitRecord) error {
	for _, u := range units {
		if u.Key == "" || len(u.Key) > maxUnitKey || len(u.Value) == 0 {
			return fmt.Errorf("%w: part %.40q of %d bytes of what a logical unit keeps", backstore.ErrInvalid, u.Key, len(u.Value))
		}
	}
	known, ok, err := m.knownUnits(id)
	if err != nil || ok && sameUnits(known, units) {
		return err
	}
	recs := []backstore.Record{{Key: unitsKey(id, nil), Value: []byte(unitsVersion)}}
	for _, u := range units {
		recs = append(recs, backstore.Record{Key: unitsKey(id, &u), Value: u.Value})
	}
	for _, u := range known {
		if !slices.ContainsFunc(units, func(o UnitRecord) bool { return o.Key == u.Key && o.Era == u.Era }) {
			recs = append(recs, backstore.Record{Key: unitsKey(id, &u)})
		}
	}
	if err := m.reached("note the reservations of the source"); err != nil {
		return err
	}
	return m.store.PutRecords(ctx, recs...)
}

// sameUnits reports whether two lists have the same parts.
func sameUnits(a, b []UnitRecord) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(u UnitRecord) bool {
		return !slices.ContainsFunc(b, func(o UnitRecord) bool { return o.Key == u.Key && o.Era == u.Era && bytes.Equal(o.Value, u.Value) })
	})
}

// unitsDeletion returns what deletes all that rounds of a pair have brought so.
func (m *Manager) unitsDeletion(id ID) ([]backstore.Record, error) {
	known, ok, err := m.knownUnits(id)
	if errors.Is(err, errNewer) {
		return nil, nil // a later program wrote it, which also finds it
	}
	if err != nil || !ok {
		return nil, err
	}
	recs := []backstore.Record{{Key: unitsKey(id, nil)}}
	for _, u := range known {
		recs = append(recs, backstore.Record{Key: unitsKey(id, &u)})
	}
	return recs, nil
}

// adoptKnown is adopt of what rounds have brought, where the source is not asked.
func (m *Manager) adoptKnown(ctx context.Context, r *record) (*Adopted, error) {
	units, ok, err := m.knownUnits(r.ID)
	if err != nil {
		return nil, err
	}
	if !ok || r.Common == nil {
		return nil, fmt.Errorf("%w: no round has brought the reservations of the source; without --reservations the LUN has what this server kept of it itself", backstore.ErrNotFound)
	}
	a, err := m.adopt(ctx, r.ID, units)
	if err == nil {
		a.Age = ago(r.Common.Taken)
	}
	return a, err
}

// adopt keeps what the logical unit of the source had, before it is served here.
func (m *Manager) adopt(ctx context.Context, id ID, units []UnitRecord) (*Adopted, error) {
	r, err := m.load(id)
	if err != nil {
		return nil, err
	}
	if m.o.Arrivals == nil {
		return nil, fmt.Errorf("%w: this server keeps no reservations", backstore.ErrInvalid)
	}
	if err := m.reached("keep the reservations"); err != nil {
		return nil, err
	}
	dropped, err := m.o.Arrivals.Adopt(ctx, r.objectName(), r.Identity, units)
	if err != nil {
		return nil, err
	}
	if dropped > 0 {
		m.log.WithField("replica", r.Name).WithField("registrations", dropped).Warn("persistent reservations were left behind: the LUN here has no target of the same name with a portal group of the same tag; those initiators have to register again")
	}
	return &Adopted{Dropped: dropped}, nil
}

// unitsHere adds what the logical unit of this side keeps to an answer, if that was asked for.
func (m *Manager) unitsHere(r *record, q Request, a *Answer) (err error) {
	if q.Units && m.o.Arrivals != nil {
		a.Units, err = m.o.Arrivals.Units(r.objectName(), r.Identity)
	}
	return err
}
