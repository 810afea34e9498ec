package target

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/target/scsi"
)

// sightingsPrefix begins the keys of the records of sightings; sightingsVersion is
// their version.
const (
	sightingsPrefix  = "server/sightings/"
	sightingsVersion = 1
)

// Bounds of the records: initiator ports, and LUNs of each, whose record has to fit
// into the store. An initiator whose record was dropped is notified once more of a LUN
// whose logical unit was ever replaced.
const (
	maxSightings     = 1024
	maxSightingLUNs  = 4096
	maxSightingISIDs = 8
)

// sightings keep over restarts which logical unit each initiator port found at its LUNs
// when it was last notified, and in which era. They implement scsi.Sightings. They are
// stored in the background: a power cut may lose those of the last seconds, and the end of
// the process those of the last moment, so that an initiator is notified again.
type sightings struct {
	store *backstore.Store
	era   string
	limit int // of ports
	// before is the state at the start; it does not change.
	before map[scsi.NexusID]*sighting

	mu    sync.Mutex // guards what follows
	now   map[scsi.NexusID]*sighting
	last  uint64 // the largest order
	dirty map[scsi.NexusID]struct{}
	wake  chan struct{} // holds a value while something is dirty
}

// sighting is what one initiator port found. It is durable.
type sighting struct {
	Version int `json:"version"`
	// Order increases with each write; the lowest is dropped first.
	Order  uint64            `json:"order"`
	Target string            `json:"target"`
	Group  uint16            `json:"group"`
	Name   string            `json:"initiator"`
	ISID   []byte            `json:"isid"`
	Units  map[uint16]unitID `json:"units"`
	// Era is when the port was here last, ISIDs are those that it had then: the last
	// maxSightingISIDs.
	Era   string   `json:"era,omitempty"`
	ISIDs [][]byte `json:"isids,omitempty"`
}

// unitID is the identity of a logical unit; it is written in hexadecimal.
type unitID [16]byte

// MarshalText implements encoding.TextMarshaler.
func (u unitID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, u[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *unitID) UnmarshalText(text []byte) error {
	id, err := hex.DecodeString(string(text))
	if err == nil && len(id) != len(u) {
		err = fmt.Errorf("an identity of %d bytes", len(id))
	}
	if err == nil {
		*u = unitID(id)
	}
	return err
}

// loadSightings reads the records of the store. It ignores those that are damaged or
// cannot be decoded.
func loadSightings(store *backstore.Store, era admin.EraID, log *logrus.Entry) (*sightings, error) {
	s := &sightings{
		store: store, era: hex.EncodeToString(era[:]), limit: maxSightings, wake: make(chan struct{}, 1),
		before: map[scsi.NexusID]*sighting{}, now: map[scsi.NexusID]*sighting{}, dirty: map[scsi.NexusID]struct{}{},
	}
	err := store.ScanRecords([]byte(sightingsPrefix), func(key, value []byte) error {
		var e sighting
		err := json.Unmarshal(value, &e)
		if err == nil && e.Version != sightingsVersion {
			err = fmt.Errorf("version %d is not known", e.Version)
		}
		if err == nil && len(e.ISID) != 6 {
			err = fmt.Errorf("an ISID of %d bytes", len(e.ISID))
		}
		if err != nil {
			log.WithError(err).WithField("record", string(key)).Warn("record of an initiator's LUNs unreadable; the initiator may be notified again")
			return nil
		}
		id := scsi.NexusID{InitiatorName: e.Name, ISID: [6]byte(e.ISID), TargetName: e.Target, TargetPortalGroupTag: e.Group}
		s.before[id], s.now[id], s.last = &e, e.clone(), max(s.last, e.Order)
		return nil
	})
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		log.WithError(err).Warn("records of the LUNs of initiators are lost; the initiators may be notified again")
	} else if err != nil {
		return nil, fmt.Errorf("LUNs found by initiators: %w", err)
	}
	return s, nil
}

func (e *sighting) clone() *sighting {
	c := *e
	c.Units, c.ISIDs = maps.Clone(e.Units), slices.Clone(e.ISIDs)
	return &c
}

// port returns the identity of a nexus over restarts. ISIDs in the random format (RFC
// 7143 11.12.5) differ between sessions, so those of an initiator count as one.
func port(id scsi.NexusID) scsi.NexusID {
	const format, random = 0xC0, 0x80
	if id.ISID[0]&format == random {
		id.ISID = [6]byte{random}
	}
	return id
}

// Last implements scsi.Sightings.
func (s *sightings) Last(id scsi.NexusID, lun uint16) (unit [16]byte, ok bool) {
	return lastOf(s.before, id, lun)
}

func lastOf(before map[scsi.NexusID]*sighting, id scsi.NexusID, lun uint16) (unit [16]byte, ok bool) {
	if e := before[port(id)]; e != nil {
		unit, ok := e.Units[lun]
		return unit, ok
	}
	return unit, false
}

// sightingsSince are sightings as they are when a target comes to a running server: what
// initiators found at a target of that name before it left is from before its start.
type sightingsSince struct {
	*sightings
	before map[scsi.NexusID]*sighting
}

// since returns the sightings for a target that comes now.
func (s *sightings) since(target string) *sightingsSince {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &sightingsSince{s, map[scsi.NexusID]*sighting{}}
	for id, e := range s.now {
		if id.TargetName == target {
			t.before[id] = e.clone()
		}
	}
	return t
}

// Last implements scsi.Sightings.
func (t *sightingsSince) Last(id scsi.NexusID, lun uint16) (unit [16]byte, ok bool) {
	return lastOf(t.before, id, lun)
}

// Interrupted implements scsi.Sightings. The target has left in the meantime, which is as a
// loss of power.
func (t *sightingsSince) Interrupted(scsi.NexusID) bool { return false }

// Interrupted implements scsi.Sightings.
func (s *sightings) Interrupted(id scsi.NexusID) bool {
	e := s.before[port(id)]
	return e != nil && e.Era == s.era && e.has(id.ISID)
}

// has reports whether the port had an ISID.
func (e *sighting) has(isid [6]byte) bool {
	return slices.ContainsFunc(e.ISIDs, func(known []byte) bool { return bytes.Equal(known, isid[:]) })
}

// meet records that the port is here now with an ISID, and reports whether that is new.
func (e *sighting) meet(era string, isid [6]byte) bool {
	if e.Era != era {
		e.Era, e.ISIDs = era, nil
	}
	if e.has(isid) {
		return false
	}
	e.ISIDs = append(e.ISIDs, isid[:])
	e.ISIDs = e.ISIDs[max(0, len(e.ISIDs)-maxSightingISIDs):]
	return true
}

// Saw implements scsi.Sightings.
func (s *sightings) Saw(id scsi.NexusID, lun uint16, unit [16]byte) {
	isid := id.ISID
	id = port(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.now[id]
	if e == nil {
		s.forgetOldest()
		e = &sighting{
			Version: sightingsVersion, Target: id.TargetName, Group: id.TargetPortalGroupTag,
			Name: id.InitiatorName, ISID: id.ISID[:], Units: map[uint16]unitID{},
		}
		s.now[id] = e
	}
	met := e.meet(s.era, isid)
	was, known := e.Units[lun]
	// A port in the older half is refreshed even if nothing changed, so that active
	// initiators are not dropped and few writes are needed.
	fresh := s.last-e.Order < uint64(s.limit)/2
	if fresh && !met && (known && was == unit || !known && len(e.Units) >= maxSightingLUNs) {
		return
	}
	if known || len(e.Units) < maxSightingLUNs {
		e.Units[lun] = unit
	}
	s.last++
	e.Order = s.last
	s.touch(id)
}

// touch marks the record of a port for writing. s.mu is held.
func (s *sightings) touch(id scsi.NexusID) {
	s.dirty[id] = struct{}{}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// forgetOldest drops the oldest record. s.mu is held.
func (s *sightings) forgetOldest() {
	for len(s.now) >= s.limit {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.now)), func(a, b scsi.NexusID) int {
			return cmp.Compare(s.now[a].Order, s.now[b].Order)
		})
		delete(s.now, oldest)
		s.touch(oldest)
	}
}

// run writes changes until ctx ends, and the rest then.
func (s *sightings) run(ctx context.Context, log *logrus.Entry) {
	for failed := false; ; {
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
		last := ctx.Err() != nil // before the save: a change during it has to be saved too
		err := s.save()
		if err != nil && !failed {
			log.WithError(err).Warn("LUNs found by initiators not stored; after a restart they may be notified again")
		}
		failed = err != nil
		if last {
			return
		}
	}
}

// save writes what has changed.
func (s *sightings) save() error {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = map[scsi.NexusID]struct{}{}
	var records []backstore.Record
	for id := range dirty {
		r := backstore.Record{Key: fmt.Appendf(nil, "%s%q %q %d %x", sightingsPrefix, id.TargetName, id.InitiatorName, id.TargetPortalGroupTag, id.ISID)}
		if e := s.now[id]; e != nil {
			r.Value, _ = json.Marshal(e) // plain data cannot fail
		}
		records = append(records, r)
	}
	s.mu.Unlock()
	for _, r := range records {
		if err := s.store.PutRecords(context.Background(), r); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			for id := range dirty {
				s.dirty[id] = struct{}{} // retried with the next change
			}
			return fmt.Errorf("store LUNs found by initiators: %w", err)
		}
	}
	// The end of the process does not make an initiator a new one.
	return s.store.WriteOut(context.Background())
}
