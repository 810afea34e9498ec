package extent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// ErrInconsistent: a slot names an extent that the table does not have, or a
// count is wrong. The store has been damaged.
var ErrInconsistent = errors.New("extent table is inconsistent")

// pagePrefix is the first byte of an extent page's key.
const pagePrefix = 'e'

const pinShards = 64

// Options configure a Table.
type Options struct {
	KV       meta.KV
	Clock    *pages.Clock
	Unit     int // blocks of a full extent, a power of two up to MaxUnit
	MaxPages int // bound of the page cache
	Next     ID  // first ID that was never used
	Usage    *Usage
}

// Table is the extent table. It is safe for concurrent use; methods that change
// it must run while no checkpoint takes its cut.
type Table struct {
	cache *pages.Cache[*page]
	kv    meta.KV
	unit  uint64
	shift uint // 1<<shift == unit
	next  atomic.Uint64
	usage *Usage

	pins [pinShards]pinShard

	// replaying defers frees: while the journal is replayed an extent can lose
	// its last reference before a later record, whose writer had pinned it,
	// refers to it again.
	replaying bool
	orphans   []ID
}

type pinShard struct {
	mu     sync.Mutex
	counts map[ID]int // guarded by mu
}

// NewTable returns the table stored in o.KV.
func NewTable(o Options) *Table {
	t := &Table{kv: o.KV, unit: uint64(o.Unit), shift: uint(bits.TrailingZeros(uint(o.Unit))), usage: o.Usage}
	t.next.Store(uint64(max(o.Next, 1)))
	for i := range t.pins {
		t.pins[i].counts = make(map[ID]int)
	}
	t.cache = pages.New(pages.Config[*page]{
		KV: o.KV, Clock: o.Clock, Prefix: pagePrefix, MaxObjects: o.MaxPages,
		Decode: func(_ uint64, stored []byte) (*page, error) { return decodePage(o.Unit, stored) },
	})
	return t
}

// PageBytes is about the memory that one cached page takes.
func PageBytes(unit int) int { return pageExtents*(48+4*unit) + 128 }

// Slot returns the slot for a block of an extent.
func (t *Table) Slot(id ID, block int) Slot { return Slot(uint64(id)<<t.shift + uint64(block)) }

// Split returns the extent and the block within it that a slot names.
func (t *Table) Split(s Slot) (ID, int) { return t.id(s), int(uint64(s) & (t.unit - 1)) }

// Next returns the first ID that was never used.
func (t *Table) Next() ID { return ID(t.next.Load()) }

// Allocate returns the first of n consecutive new IDs.
func (t *Table) Allocate(n int) ID { return ID(t.next.Add(uint64(n)) - uint64(n)) }

// Cut is the table's part of a checkpoint's cut.
func (t *Table) Cut() *pages.Cut[*page] { return t.cache.Cut() }

// Dirty returns how many pages changed since the last cut.
func (t *Table) Dirty() int { return t.cache.Dirty() }

// Create adds an extent that refs slots are about to refer to.
func (t *Table) Create(id ID, x *Extent, refs int) error {
	// Replay meets IDs that were allocated after the last checkpoint.
	for {
		next := t.next.Load()
		if uint64(id) < next || t.next.CompareAndSwap(next, uint64(id)+1) {
			break
		}
	}
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return err
	}
	defer p.Unlock()
	i := int(uint64(id) % pageExtents)
	e := &p.entries[i]
	if e.blocks != 0 {
		return fmt.Errorf("%w: extent %d exists already", ErrInconsistent, id)
	}
	t.cache.Change(p)
	*e = entry{addr: x.Addr, refs: uint64(refs), blocks: x.Blocks, fp: x.Fingerprint}
	copy(p.crc(i), x.CRC[:x.Blocks])
	t.usage.add(x.Addr.Segment, int64(x.Blocks), p.ID())
	return nil
}

// Ref adds a reference for each slot that is not a hole.
func (t *Table) Ref(slots []Slot) error {
	return t.eachPage(slots, func(p *page, slots []Slot) error {
		t.cache.Change(p)
		for _, s := range slots {
			if s == 0 {
				continue
			}
			e := p.entry(t.id(s))
			if e.blocks == 0 {
				return fmt.Errorf("%w: new reference to extent %d, which does not exist", ErrInconsistent, t.id(s))
			}
			e.refs++
		}
		return nil
	})
}

// Unref takes a reference back for each slot that is not a hole, and frees
// extents that have none left.
func (t *Table) Unref(slots []Slot) error {
	return t.eachPage(slots, func(p *page, slots []Slot) error {
		t.cache.Change(p)
		for _, s := range slots {
			if s == 0 {
				continue
			}
			e := p.entry(t.id(s))
			if e.refs == 0 {
				return fmt.Errorf("%w: reference taken from extent %d, which has none", ErrInconsistent, t.id(s))
			}
			if e.refs--; e.refs == 0 {
				t.orphan(e, t.id(s))
			}
		}
		return nil
	})
}

// orphan frees an extent without references, unless it is pinned or may be
// referred to again by the rest of the journal. Its page is locked and changed.
func (t *Table) orphan(e *entry, id ID) {
	if t.replaying {
		t.orphans = append(t.orphans, id)
		return
	}
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	pinned := s.counts[id] > 0
	s.mu.Unlock()
	if !pinned {
		t.free(e)
	}
}

func (t *Table) free(e *entry) {
	t.usage.add(e.addr.Segment, -int64(e.blocks), 0)
	*e = entry{}
}

// id returns the extent that a slot names.
func (t *Table) id(s Slot) ID { return ID(s >> t.shift) }

// eachPage calls fn with runs of slots whose extents share a page, holes among
// them, with the page locked.
func (t *Table) eachPage(slots []Slot, fn func(p *page, slots []Slot) error) error {
	for i := 0; i < len(slots); {
		if slots[i] == 0 {
			i++
			continue
		}
		number := uint64(t.id(slots[i])) / pageExtents
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0 || uint64(t.id(slots[i+n]))/pageExtents == number) {
			n++
		}
		p, err := t.cache.Lock(number)
		if err != nil {
			return err
		}
		err = fn(p, slots[i:i+n])
		p.Unlock()
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// Resolve fills out[i] with the place of slots[i].
func (t *Table) Resolve(slots []Slot, out []Location) error {
	var p *page
	for i, s := range slots {
		if s == 0 {
			out[i] = Location{}
			continue
		}
		id, block := t.Split(s)
		number := uint64(id) / pageExtents
		if p == nil || p.ID() != number {
			if p != nil {
				p.Unlock()
			}
			var err error
			if p, err = t.cache.Lock(number); err != nil {
				return err
			}
		}
		k := int(uint64(id) % pageExtents)
		e := &p.entries[k]
		if block >= int(e.blocks) {
			p.Unlock()
			return fmt.Errorf("%w: slot names block %d of extent %d, which has %d", ErrInconsistent, block, id, e.blocks)
		}
		out[i] = Location{Addr: e.addr, CRC: p.crc(k)[block]}
		out[i].Addr.Block += uint32(block)
	}
	if p != nil {
		p.Unlock()
	}
	return nil
}

// InSegment calls fn with each extent of one page that lies in the segment.
func (t *Table) InSegment(page uint64, seg segment.ID, fn func(id ID, x *Extent)) error {
	p, err := t.cache.Lock(page)
	if err != nil {
		return err
	}
	defer p.Unlock()
	for i := range p.entries {
		e := &p.entries[i]
		if e.blocks == 0 || e.addr.Segment != seg {
			continue
		}
		x := Extent{Addr: e.addr, Blocks: e.blocks, Fingerprint: e.fp}
		copy(x.CRC[:], p.crc(i)[:e.blocks])
		fn(ID(page*pageExtents+uint64(i)), &x)
	}
	return nil
}

// Move says that an extent's data now lies at to. It does nothing, and reports
// false, when the extent is no longer at from.
func (t *Table) Move(id ID, from, to segment.Addr) (bool, error) {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	e := &p.entries[uint64(id)%pageExtents]
	if e.blocks == 0 || e.addr != from {
		return false, nil
	}
	t.cache.Change(p)
	e.addr = to
	t.usage.add(to.Segment, int64(e.blocks), p.ID())
	t.usage.add(from.Segment, -int64(e.blocks), 0)
	return true, nil
}

// Pin keeps the extent alive if it exists and has exactly that fingerprint and
// length, and reports whether it does.
func (t *Table) Pin(id ID, fp *Fingerprint, blocks int) (bool, error) {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	e := &p.entries[uint64(id)%pageExtents]
	if int(e.blocks) != blocks || e.fp != *fp {
		return false, nil
	}
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	s.counts[id]++
	s.mu.Unlock()
	return true, nil
}

// Unpin ends a Pin.
func (t *Table) Unpin(id ID) error {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return err
	}
	defer p.Unlock()
	s := &t.pins[id%pinShards]
	s.mu.Lock()
	if invariant.Enabled && s.counts[id] == 0 {
		invariant.Violated("extent %d is unpinned and was not pinned", id)
	}
	s.counts[id]--
	last := s.counts[id] == 0
	if last {
		delete(s.counts, id)
	}
	s.mu.Unlock()
	if e := &p.entries[uint64(id)%pageExtents]; last && e.blocks != 0 && e.refs == 0 {
		t.cache.Change(p)
		t.free(e)
	}
	return nil
}

// Pinned returns the extents that are pinned. A checkpoint stores them with its
// cut: one that has no references then must be freed by the restart after it.
func (t *Table) Pinned() []ID {
	var ids []ID
	for i := range t.pins {
		s := &t.pins[i]
		s.mu.Lock()
		for id := range s.counts {
			ids = append(ids, id)
		}
		s.mu.Unlock()
	}
	return ids
}

// BeginReplay defers frees until EndReplay. pinned are the extents that were
// pinned when the last checkpoint took its cut.
func (t *Table) BeginReplay(pinned []ID) {
	t.replaying = true
	t.orphans = pinned
}

// EndReplay frees what the replayed records left without references.
func (t *Table) EndReplay() error {
	t.replaying = false
	for _, id := range t.orphans {
		p, err := t.cache.Lock(uint64(id) / pageExtents)
		if err != nil {
			return err
		}
		if e := &p.entries[uint64(id)%pageExtents]; e.blocks != 0 && e.refs == 0 {
			t.cache.Change(p)
			t.free(e)
		}
		p.Unlock()
	}
	t.orphans = nil
	return nil
}

// ScanStored calls fn with each extent that the last checkpoint stored, in the
// order of IDs, until fn returns false.
func (t *Table) ScanStored(fn func(id ID, refs uint64, x *Extent) bool) error {
	errStop := errors.New("stop")
	err := t.kv.Scan([]byte{pagePrefix}, func(key, value []byte) error {
		if len(key) != 9 {
			return fmt.Errorf("%w: extent page key of %d bytes", ErrInconsistent, len(key))
		}
		p, err := decodePage(int(t.unit), value)
		if err != nil {
			return err
		}
		first := binary.BigEndian.Uint64(key[1:]) * pageExtents
		for i := range p.entries {
			e := &p.entries[i]
			if e.blocks == 0 {
				continue
			}
			x := Extent{Addr: e.addr, Blocks: e.blocks, Fingerprint: e.fp}
			copy(x.CRC[:], p.crc(i)[:e.blocks])
			if !fn(ID(first+uint64(i)), e.refs, &x) {
				return errStop
			}
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
