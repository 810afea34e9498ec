package extent

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/segment"
)

// UsagePrefix is the first byte of a segment usage record's key.
const UsagePrefix = 'u'

// Usage counts the live blocks of each segment: those of extents in the table. A
// segment with none can be removed after a checkpoint has stored that. Usage also
// records which pages of the table have extents of a segment, so that cleaning a
// segment does not read the whole table.
type Usage struct {
	mu       sync.Mutex
	segments map[segment.ID]*segmentUsage // guarded by mu
	changed  map[segment.ID]bool          // since the last cut; guarded by mu
	total    int64                        // live blocks of all segments; guarded by mu
}

type segmentUsage struct {
	live  int64
	pages []uint64 // pages that have, or had, extents of the segment, ascending
}

// LoadUsage reads the counts of the last checkpoint. With meta.ErrDamaged it also
// returns those that could be read.
func LoadUsage(kv meta.Reader) (*Usage, error) {
	u := &Usage{segments: make(map[segment.ID]*segmentUsage), changed: make(map[segment.ID]bool)}
	err := kv.Scan([]byte{UsagePrefix}, func(key, value []byte) error {
		if len(key) != 5 {
			return fmt.Errorf("%w: segment usage key of %d bytes", ErrInconsistent, len(key))
		}
		su, err := decodeUsage(value)
		if err != nil {
			return err
		}
		u.segments[segment.ID(binary.BigEndian.Uint32(key[1:]))] = su
		u.total += su.live
		return nil
	})
	return u, err
}

// encode returns uvarints: the live blocks, then the pages, each as the difference to
// the previous one.
func (su *segmentUsage) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(su.live))
	last := uint64(0)
	for _, page := range su.pages {
		b = binary.AppendUvarint(b, page-last)
		last = page
	}
	return b
}

func decodeUsage(b []byte) (*segmentUsage, error) {
	live, n := binary.Uvarint(b)
	if n <= 0 || live > math.MaxInt64 {
		return nil, fmt.Errorf("%w: segment usage record is malformed", ErrInconsistent)
	}
	su := &segmentUsage{live: int64(live)}
	last := uint64(0)
	for b = b[n:]; len(b) > 0; b = b[n:] {
		var diff uint64
		if diff, n = binary.Uvarint(b); n <= 0 {
			return nil, fmt.Errorf("%w: segment usage record is malformed", ErrInconsistent)
		}
		last += diff
		su.pages = append(su.pages, last)
	}
	return su, nil
}

// add adds blocks, which may be negative, of an extent of the page to the segment.
func (u *Usage) add(id segment.ID, blocks int64, page uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	su := u.segments[id]
	if su == nil {
		su = &segmentUsage{}
		u.segments[id] = su
	}
	su.live += blocks
	u.total += blocks
	u.changed[id] = true
	if invariant.Enabled && su.live < 0 {
		invariant.Violated("segment %08x has %d live blocks", id, su.live)
	}
	if su.live == 0 {
		delete(u.segments, id)
		return
	}
	if blocks > 0 {
		if at, found := slices.BinarySearch(su.pages, page); !found {
			su.pages = slices.Insert(su.pages, at, page)
		}
	}
}

// Live returns the live blocks of one segment.
func (u *Usage) Live(id segment.ID) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if su := u.segments[id]; su != nil {
		return su.live
	}
	return 0
}

// Segments returns the segments that have live blocks, in order.
func (u *Usage) Segments() []segment.ID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.segments))
}

// Pages returns the table's pages that may have extents of a segment.
func (u *Usage) Pages(id segment.ID) []uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if su := u.segments[id]; su != nil {
		return slices.Clone(su.pages)
	}
	return nil
}

// Total returns the live blocks of all segments.
func (u *Usage) Total() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.total
}

// Cut returns the rows of the counts changed since the last checkpoint cut.
func (u *Usage) Cut() []meta.Op {
	u.mu.Lock()
	defer u.mu.Unlock()
	ops := make([]meta.Op, 0, len(u.changed))
	for id := range u.changed {
		op := meta.Op{Key: binary.BigEndian.AppendUint32([]byte{UsagePrefix}, uint32(id))}
		if su := u.segments[id]; su != nil {
			op.Value = su.encode()
		}
		ops = append(ops, op)
	}
	clear(u.changed)
	return ops
}

// Abandon marks the counts of a cut that could not be stored as changed.
func (u *Usage) Abandon(ops []meta.Op) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, op := range ops {
		u.changed[segment.ID(binary.BigEndian.Uint32(op.Key[1:]))] = true
	}
}
