package backstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"odx/backstore/segment"
)

// holdPrefix begins the keys of holds. The identity of the taker follows in hexadecimal, a slash,
// and the segment. The value is a byte, the version, and the stamp.
const (
	holdPrefix  = "store/hold/"
	holdVersion = 1
	// holdsAtOnce bounds the holds that one record of the journal changes.
	holdsAtOnce = 1000
)

// lostStamp is that of a hold whose record is damaged. No claim is later: which one is from after
// the hold is not known, and one from before it must not end it. It goes on until it is given again,
// or an administrator ends it.
var lostStamp = Stamp{math.MaxUint64, math.MaxUint64}

// errMovedOn: a segment was given up before it was held.
var errMovedOn = errors.New("the segment was given up")

// holds are those that other stores have on segments of this one.
type holds struct {
	changing sync.Mutex // held while records of holds are put; outside of opMu

	mu      sync.Mutex // guards what follows
	takers  map[[16]byte]map[segment.ID]Stamp
	count   map[segment.ID]int  // of takers
	leaving map[segment.ID]bool // segments that are being removed
}

// has reports whether a store has a hold on a segment.
func (h *holds) has(id segment.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count[id] > 0
}

// leave reports whether a segment may be removed: from then on it cannot be held.
func (h *holds) leave(id segment.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count[id] > 0 {
		return false
	}
	if h.leaving == nil {
		h.leaving = make(map[segment.ID]bool)
	}
	h.leaving[id] = true
	return true
}

// left ends leave.
func (h *holds) left(id segment.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.leaving, id)
}

// set changes a hold in memory. mu is held.
func (h *holds) set(taker [16]byte, id segment.ID, stamp Stamp, held bool) {
	of := h.takers[taker]
	_, before := of[id]
	switch {
	case held && of == nil:
		if h.takers == nil {
			h.takers, h.count = make(map[[16]byte]map[segment.ID]Stamp), make(map[segment.ID]int)
		}
		h.takers[taker] = map[segment.ID]Stamp{id: stamp}
	case held:
		of[id] = stamp
	default:
		delete(of, id)
		if len(of) == 0 {
			delete(h.takers, taker)
		}
	}
	if held != before {
		if held {
			h.count[id]++
		} else if h.count[id]--; h.count[id] == 0 {
			delete(h.count, id)
		}
	}
}

func holdKey(taker [16]byte, id segment.ID) []byte {
	return fmt.Appendf(nil, "%s%x/%08x", holdPrefix, taker, uint32(id))
}

func parseHoldKey(key []byte) (taker [16]byte, id segment.ID, ok bool) {
	store, seg, _ := strings.Cut(strings.TrimPrefix(string(key), holdPrefix), "/")
	a, err := hex.DecodeString(store)
	b, err2 := hex.DecodeString(seg)
	if err != nil || err2 != nil || len(a) != len(taker) || len(b) != 4 {
		return taker, 0, false
	}
	id = segment.ID(binary.BigEndian.Uint32(b))
	return [16]byte(a), id, bytes.Equal(key, holdKey([16]byte(a), id))
}

func encodeHold(s Stamp) []byte {
	b := binary.BigEndian.AppendUint64([]byte{holdVersion}, s.Epoch)
	return binary.BigEndian.AppendUint64(b, s.Seq)
}

func decodeHold(b []byte) (Stamp, error) {
	if len(b) != 17 || b[0] != holdVersion {
		return Stamp{}, fmt.Errorf("%w: hold of %d bytes", ErrCorrupt, len(b))
	}
	return Stamp{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, nil
}

// loadHolds reads the holds of a store that is being opened, before any segment can be removed. A
// hold whose record is damaged is one all the same (see lostStamp).
func (s *Store) loadHolds() error {
	h := &s.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	err := s.ScanRecords([]byte(holdPrefix), func(key, value []byte) error {
		stamp, err := decodeHold(value)
		if err != nil {
			return fmt.Errorf("record %q: %w", key, err)
		}
		return h.load(key, stamp)
	})
	lost, ok := errors.AsType[*LostRecordsError](err)
	if !ok {
		return err
	}
	return h.loadLost(lost.Keys)
}

// load sets the hold of a record. mu is held.
func (h *holds) load(key []byte, stamp Stamp) error {
	taker, id, ok := parseHoldKey(key)
	if !ok {
		return fmt.Errorf("%w: record %q: no hold of a store on a segment", ErrCorrupt, key)
	}
	h.set(taker, id, stamp, true)
	return nil
}

// loadLost sets the holds of records that are damaged. mu is held.
func (h *holds) loadLost(keys [][]byte) error {
	for _, key := range keys {
		if err := h.load(key, lostStamp); err != nil {
			return err
		}
	}
	return nil
}

// hold holds segments for a taker. When it returns, the holds and all data that the segments had
// are durable. errMovedOn: one of the segments is gone; the taker's next claim ends what was held.
func (s *Store) hold(ctx context.Context, taker [16]byte, stamp Stamp, ids []segment.ID) error {
	if err := s.share(); err != nil {
		return err
	}
	s.holds.changing.Lock()
	err := s.putHolds(ctx, taker, stamp, ids)
	s.holds.changing.Unlock()
	if err != nil {
		return err
	}
	// From here on no checkpoint removes them. What is there now stays.
	there := s.parts.segments.List()
	for _, id := range ids {
		if _, ok := slices.BinarySearch(there, id); !ok {
			return fmt.Errorf("segment %08x: %w", uint32(id), errMovedOn)
		}
	}
	// Data that the journal carries may not be in its segment yet.
	if err := s.parts.segments.Sync(); err != nil {
		return spaceError(err)
	}
	return s.Flush(ctx)
}

// putHolds puts the records of holds that are not there, or have an earlier stamp.
func (s *Store) putHolds(ctx context.Context, taker [16]byte, stamp Stamp, ids []segment.ID) error {
	for part := range slices.Chunk(ids, holdsAtOnce) {
		recs, undo, err := s.holds.add(taker, stamp, part)
		if err != nil {
			return err
		}
		if len(recs) == 0 {
			continue
		}
		if err := s.PutRecords(ctx, recs...); err != nil {
			undo()
			return err
		}
	}
	return nil
}

// add adds holds in memory, and returns their records and what takes them back.
func (h *holds) add(taker [16]byte, stamp Stamp, ids []segment.ID) (recs []Record, undo func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if h.leaving[id] {
			return nil, nil, fmt.Errorf("segment %08x: %w", uint32(id), errMovedOn)
		}
	}
	before := make(map[segment.ID]*Stamp)
	for _, id := range ids {
		old, held := h.takers[taker][id]
		if held && old != lostStamp && !stamp.after(old) {
			continue
		}
		if before[id] = nil; held {
			before[id] = &old
		}
		h.set(taker, id, stamp, true)
		recs = append(recs, Record{Key: holdKey(taker, id), Value: encodeHold(stamp)})
	}
	return recs, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for id, old := range before {
			if old == nil {
				h.set(taker, id, Stamp{}, false)
			} else {
				h.set(taker, id, *old, true)
			}
		}
	}, nil
}

// Claim is what a taker needs of a maker, of the segments from First to Last: those of Segments,
// which ascend. Holds on others end, unless they have a later stamp.
type Claim struct {
	Taker       [16]byte
	Stamp       Stamp
	First, Last uint32
	Segments    []uint32
}

// Settle ends the holds that a claim does not have, durably, and returns the segments of the claim
// that are not held: data of the taker that is, or will be, lost.
func (s *Store) Settle(ctx context.Context, c Claim) (missing []uint32, err error) {
	if !slices.IsSorted(c.Segments) {
		return nil, fmt.Errorf("%w: the segments of a claim do not ascend", ErrInvalid)
	}
	if err := s.life.writable(); err != nil {
		return nil, err
	}
	s.holds.changing.Lock()
	defer s.holds.changing.Unlock()
	over, missing := s.holds.compare(c)
	return missing, s.endHolds(ctx, c.Taker, over)
}

// Unheld returns the segments of a claim that are not held, and changes nothing.
func (s *Store) Unheld(c Claim) (missing []uint32) {
	_, missing = s.holds.compare(c)
	return missing
}

// compare returns the holds that a claim ends, and the segments that it lacks.
func (h *holds) compare(c Claim) (over []segment.ID, missing []uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.takers[c.Taker]
	for id, stamp := range of {
		if uint32(id) < c.First || uint32(id) > c.Last || stamp.after(c.Stamp) {
			continue
		}
		if _, needed := slices.BinarySearch(c.Segments, uint32(id)); !needed {
			over = append(over, id)
		}
	}
	for _, id := range c.Segments {
		if _, held := of[segment.ID(id)]; !held {
			missing = append(missing, id)
		}
	}
	slices.Sort(over)
	return over, missing
}

// endHolds ends holds durably. holds.changing is held.
func (s *Store) endHolds(ctx context.Context, taker [16]byte, ids []segment.ID) error {
	if len(ids) == 0 {
		return nil
	}
	for part := range slices.Chunk(ids, holdsAtOnce) {
		recs := make([]Record, len(part))
		for i, id := range part {
			recs[i].Key = holdKey(taker, id)
		}
		if err := s.PutRecords(ctx, recs...); err != nil {
			return err
		}
		s.holds.mu.Lock()
		for _, id := range part {
			s.holds.set(taker, id, Stamp{}, false)
		}
		s.holds.mu.Unlock()
	}
	return s.Flush(ctx)
}

// HeldBy is what another store holds of this one.
type HeldBy struct {
	Taker    [16]byte
	Segments int
	Bytes    int64 // length of the segments
}

// HeldBy returns what other stores hold, by their identities.
func (s *Store) HeldBy() []HeldBy {
	s.holds.mu.Lock()
	takers := make(map[[16]byte][]segment.ID, len(s.holds.takers))
	for taker, of := range s.holds.takers {
		takers[taker] = slices.Collect(maps.Keys(of))
	}
	s.holds.mu.Unlock()
	list := make([]HeldBy, 0, len(takers))
	for taker, ids := range takers {
		one := HeldBy{Taker: taker, Segments: len(ids)}
		for _, id := range ids {
			one.Bytes += s.parts.segments.Bytes(id)
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b HeldBy) int { return bytes.Compare(a.Taker[:], b.Taker[:]) })
	return list
}

// EndHolds ends all holds of a store that does not come back, durably, and returns how many there
// were. Data that it has adopted is lost to it once this store gives the segments up.
func (s *Store) EndHolds(ctx context.Context, taker [16]byte) (n int, err error) {
	if err := s.life.writable(); err != nil {
		return 0, err
	}
	s.holds.changing.Lock()
	defer s.holds.changing.Unlock()
	s.holds.mu.Lock()
	ids := slices.Sorted(maps.Keys(s.holds.takers[taker]))
	s.holds.mu.Unlock()
	return len(ids), s.endHolds(ctx, taker, ids)
}

// LentBytes returns the length of the segments that other stores hold.
func (s *Store) LentBytes() (bytes int64) {
	for _, id := range s.holds.segments() {
		bytes += s.parts.segments.Bytes(id)
	}
	return bytes
}

// among adds the segments that are held to a set, and returns it.
func (h *holds) among(set map[segment.ID]bool) map[segment.ID]bool {
	for _, id := range h.segments() {
		set[id] = true
	}
	return set
}

// segments returns those that are held.
func (h *holds) segments() []segment.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.count))
}

// reclaimable returns how many bytes of dead data there are in segments of which so many bytes
// are live, in those that no other store holds.
func (s *Store) reclaimable(physical, live int64) int64 {
	dead := physical - live - int64(len(s.parts.segments.List()))*BlockLength
	return max(dead-s.LentDeadBytes(), 0)
}

// LentDeadBytes returns how many bytes are dead here in segments that other stores hold: cleaning
// gives none of them back before those let go.
func (s *Store) LentDeadBytes() (dead int64) {
	for _, id := range s.holds.segments() {
		dead += max(s.parts.segments.Bytes(id)-(1+s.parts.usage.Live(id))*BlockLength, 0)
	}
	return dead
}
