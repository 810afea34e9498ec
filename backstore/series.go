package backstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"odx/backstore/extent"
)

// A slot names one content for ever within one history of a store: numbers of extents are
// not given out twice. Other stores remember slots, and can meet another history of the
// same store:
//
//   - a power cut takes back the last operations, and the store gives out the numbers of
//     their extents again, for other data;
//   - a copy of the store, a backup that is restored, and a virtual machine whose disk goes
//     back to a snapshot continue from an earlier state, with the same identity.
//
// So the numbers of extents are divided into series. Each opening for writing begins one,
// with a random number, at the next extent: what is allocated from then on is of that
// series. Two histories part while the store is not open, or by a power cut, which closes
// it; so after that their extents have different series, and a name, series and slot, that
// was given to another store never stands for other data: not in this history, where the
// extent keeps its series, and not in another one.
//
// The record of the series is appended to the journal before any extent of the newest one
// is, so whatever a crash leaves of these has its series. If it cannot be appended, which a
// store without room for records can cause, names of this process are of a series that is
// never stored, and the next opening counts its extents to the series before: then the
// checksum of each block is what protects.
//
// The checksum is also all that protects where the process itself goes back in time, in a
// virtual machine that is set back with its memory, and after an older program, which
// begins no series, had the store open.
//
// A store that has never given names to another one has no record.
const (
	seriesKey     = "store/series"
	seriesVersion = 1
	// maxSeriesParts is how many series are kept. With one more, the older half becomes one
	// with a new number: other stores do not know its blocks any more.
	maxSeriesParts = 256
)

// seriesPart is the extents from first on, up to the next part.
type seriesPart struct {
	first extent.ID
	id    uint64
}

// series are those of a store.
type series struct {
	parts *parts

	begun   sync.Mutex                   // held while the first names are given out
	current atomic.Pointer[[]seriesPart] // in ascending order; nil: no name was given out yet
}

func newSeriesID() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// next returns the parts of a store that is opened with the next extent: what was in a
// series beyond that is lost, and is made again.
func nextSeries(parts []seriesPart, next extent.ID) []seriesPart {
	for len(parts) > 0 && parts[len(parts)-1].first >= next {
		parts = parts[:len(parts)-1]
	}
	parts = append(parts, seriesPart{first: next, id: newSeriesID()})
	if len(parts) > maxSeriesParts {
		parts = append([]seriesPart{{id: newSeriesID()}}, parts[len(parts)/2:]...)
	}
	if parts[0].first > 0 && len(parts) == 1 {
		parts[0].first = 0
	}
	return parts
}

// encodeSeries returns the value of the record: version (a byte), then first extent and
// number (8 bytes each) of each series.
func encodeSeries(parts []seriesPart) []byte {
	b := []byte{seriesVersion}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(p.first))
		b = binary.BigEndian.AppendUint64(b, p.id)
	}
	return b
}

func decodeSeries(b []byte) ([]seriesPart, error) {
	if len(b) < 1+16 || b[0] != seriesVersion || (len(b)-1)%16 != 0 {
		return nil, fmt.Errorf("%w: record %q has %d bytes", ErrCorrupt, seriesKey, len(b))
	}
	var parts []seriesPart
	for b = b[1:]; len(b) > 0; b = b[16:] {
		p := seriesPart{first: extent.ID(binary.BigEndian.Uint64(b)), id: binary.BigEndian.Uint64(b[8:])}
		if n := len(parts); n == 0 && p.first != 0 || n > 0 && p.first <= parts[n-1].first {
			return nil, fmt.Errorf("%w: record %q is not in order", ErrCorrupt, seriesKey)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// of returns the series of the first of slots, and how many of them from there on have it.
func (s *series) of(slots []uint64) (id uint64, n int) {
	parts := *s.current.Load()
	unit := s.parts.sb.Unit
	i := len(parts) - 1
	for i > 0 && slots[0] < uint64(parts[i].first.Slot(unit, 0)) {
		i--
	}
	lo, hi := uint64(parts[i].first.Slot(unit, 0)), ^uint64(0)
	if i+1 < len(parts) {
		hi = uint64(parts[i+1].first.Slot(unit, 0))
	}
	for n = 1; n < len(slots) && slots[n] >= lo && slots[n] < hi; n++ {
	}
	return parts[i].id, n
}

// continueSeries begins the next series of a store that is opened for writing, if it has
// given names to other stores. It runs before any extent is allocated.
func (s *Store) continueSeries(ctx context.Context) error {
	parts, err := s.storedSeries()
	if parts == nil {
		return err
	}
	parts = nextSeries(parts, s.parts.extents.Next())
	if err := s.PutRecords(ctx, Record{Key: []byte(seriesKey), Value: encodeSeries(parts)}); err != nil {
		s.log.WithError(err).Warn("blocks that are written from now on have no lasting names for other stores")
	}
	s.series.current.Store(&parts)
	return nil
}

// storedSeries returns what the record has, nil if there is none. A damaged one is none:
// all blocks get new names.
func (s *Store) storedSeries() ([]seriesPart, error) {
	value, err := s.GetRecord([]byte(seriesKey))
	if err == nil {
		var parts []seriesPart
		if parts, err = decodeSeries(value); err == nil {
			return parts, nil
		}
	}
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if errors.Is(err, ErrCorrupt) {
		s.log.WithError(err).Warn("the names that other stores have for blocks of this store are lost")
		return nextSeries(nil, s.parts.extents.Next()), nil
	}
	return nil, err
}

// beginSeries makes the series of a store that gives out names for the first time, durably.
// One that is only read has its stored ones, or one that ends with the process.
func (s *Store) beginSeries(ctx context.Context) error {
	if s.series.current.Load() != nil {
		return nil
	}
	s.series.begun.Lock()
	defer s.series.begun.Unlock()
	if s.series.current.Load() != nil {
		return nil
	}
	parts, err := s.storedSeries()
	if err != nil {
		return err
	}
	if parts == nil {
		parts = nextSeries(nil, s.parts.extents.Next())
	}
	if !s.opts.ReadOnly {
		err = s.PutRecords(ctx, Record{Key: []byte(seriesKey), Value: encodeSeries(parts)})
		if err == nil {
			err = s.Flush(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.log.WithError(err).Warn("blocks have no lasting names for other stores yet")
			parts = []seriesPart{{id: newSeriesID()}}
		}
	}
	s.series.current.Store(&parts)
	return nil
}
