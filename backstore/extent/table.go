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
	"odx/backstore/refs"
	"odx/backstore/segment"
)

// ErrInconsistent reports a damaged store: a slot names an extent that does not exist,
// or a count is wrong.
var ErrInconsistent = errors.New("extent table is inconsistent")

// PagePrefix is the first byte of an extent page's key.
const PagePrefix = 'e'

const pinShards = 64

// Options configure a Table.
type Options struct {
	KV       meta.Reader
	Clock    *pages.Clock
	Unit     int   // blocks of a full extent, a power of two up to MaxUnit
	MaxBytes int64 // bound of the caches of extents and of their counts
	Next     ID    // lowest ID never allocated
	Usage    *Usage
}

// Table is the extent table. It is safe for concurrent use; methods that change it must
// not run during a checkpoint cut.
//
// The lock order is: the page of an extent's count, the extent's page, its shard of the
// pins. The first guards changes of the extent's references and pins.
//
// An extent with neither is freed: its blocks do not count as live, and its ID is not
// reused. Its entry stays until a third of the page's extents are freed, so that random
// writes do not dirty all pages in every checkpoint.
type Table struct {
	cache  *pages.Cache[*page]
	counts *refs.Counts
	kv     meta.Reader
	unit   uint64
	shift  uint // 1<<shift == unit
	next   atomic.Uint64
	usage  *Usage

	pins [pinShards]pinShard

	// replaying defers frees: during replay an extent can lose its last reference
	// before a later record, whose writer had pinned it, refers to it again.
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
	countBytes := o.MaxBytes / 8 // covers about as many extents as the other cache, for extents of one block
	t.counts = refs.New(refs.Options{Kind: countKind, KV: o.KV, Clock: o.Clock, MaxBytes: countBytes})
	t.cache = pages.New(pages.Config[*page]{
		KV: o.KV, Clock: o.Clock, Prefix: PagePrefix, MaxObjects: int((o.MaxBytes - countBytes) / pageBytes(o.Unit)),
		Decode: func(_ uint64, stored []byte) (*page, error) { return decodePage(o.Unit, stored) },
	})
	return t
}

// Slot returns the slot of a block of an extent.
func (t *Table) Slot(id ID, block int) Slot { return Slot(uint64(id)<<t.shift + uint64(block)) }

// Split returns the extent and the block within it that a slot names.
func (t *Table) Split(s Slot) (ID, int) { return t.id(s), int(uint64(s) & (t.unit - 1)) }

// Next returns the lowest ID never allocated.
func (t *Table) Next() ID { return ID(t.next.Load()) }

// Allocate returns the first of n consecutive new IDs.
func (t *Table) Allocate(n int) ID { return ID(t.next.Add(uint64(n)) - uint64(n)) }

// Create adds an extent with one reference per block; the caller sets the slots that
// refer to them.
func (t *Table) Create(id ID, x *Extent) error {
	// Replayed records have IDs that were allocated after the last checkpoint.
	for {
		next := t.next.Load()
		if uint64(id) < next || t.next.CompareAndSwap(next, uint64(id)+1) {
			break
		}
	}
	if invariant.Enabled {
		if extra, err := t.counts.Extra(uint64(id)); err != nil || extra != 0 {
			return errors.Join(err, fmt.Errorf("%w: extent %d is new and has %d extra references", ErrInconsistent, id, extra))
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
		return fmt.Errorf("%w: extent %d already exists", ErrInconsistent, id)
	}
	t.cache.Change(p)
	*e = entry{addr: x.Addr, blocks: x.Blocks, fp: x.Fingerprint}
	copy(p.crc(i), x.CRC[:x.Blocks])
	t.usage.add(x.Addr.Segment, int64(x.Blocks), p.ID())
	return nil
}

// id returns the extent that a slot names.
func (t *Table) id(s Slot) ID { return ID(s >> t.shift) }

// Resolve fills out[i] with the location of slots[i].
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
			return fmt.Errorf("%w: slot names block %d of extent %d of %d blocks", ErrInconsistent, block, id, e.blocks)
		}
		out[i] = Location{Addr: e.addr, CRC: p.crc(k)[block]}
		out[i].Addr.Block += uint32(block)
	}
	if p != nil {
		p.Unlock()
	}
	return nil
}

// InSegment calls fn with each extent of a page that is stored in the segment.
func (t *Table) InSegment(page uint64, seg segment.ID, fn func(id ID, x *Extent)) error {
	return t.Visit(page, func(id ID, x *Extent) {
		if x.Addr.Segment == seg {
			fn(id, x)
		}
	})
}

// Move sets the address of an extent to to, if it is from. Otherwise it changes nothing
// and returns false.
func (t *Table) Move(id ID, from, to segment.Addr) (bool, error) {
	c, p, err := t.lock(id)
	if err != nil {
		return false, err
	}
	defer c.Unlock()
	defer p.Unlock()
	e := p.entry(id)
	if !t.live(c, p, id) || e.addr != from {
		return false, nil
	}
	t.cache.Change(p)
	e.addr = to
	t.usage.add(to.Segment, int64(e.blocks), p.ID())
	t.usage.add(from.Segment, -int64(e.blocks), 0)
	return true, nil
}

// ScanStored calls fn with each extent with references that the last checkpoint stored,
// in the order of IDs, until fn returns false. During a concurrent checkpoint it may
// omit extents, and include some without references.
func (t *Table) ScanStored(fn func(id ID, x *Extent) bool) error {
	errStop := errors.New("stop")
	stored := NewStored(t.kv, int(t.unit))
	err := t.kv.Scan([]byte{PagePrefix}, func(key, value []byte) error {
		if len(key) != 9 {
			return fmt.Errorf("%w: extent page key of %d bytes", ErrInconsistent, len(key))
		}
		p, err := decodePage(int(t.unit), value)
		if err != nil {
			return err
		}
		first := ID(binary.BigEndian.Uint64(key[1:]) * pageExtents)
		c, err := stored.countsOf(first)
		if err != nil {
			return err
		}
		for i := range p.entries {
			id := first + ID(i)
			if p.entries[i].blocks == 0 || p.references(c, id) == 0 {
				continue
			}
			x := p.extent(i)
			if !fn(id, &x) {
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
