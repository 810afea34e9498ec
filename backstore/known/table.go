// Package known remembers under which names other stores have the blocks that came from
// them, so that a block which one of them names again need not be sent again.
//
// A name is the identity of the store, a series and a slot. A series is a random number of
// a part of that store's life; within it, a slot is never used for other data, nor in a
// copy of the store. For a name the table has the slot of this store that got the block's
// data.
//
// What the table says is a hint. A caller that uses it claims the local block
// (extent.Table.Claim), which proves that it is still there and that its checksum is the
// one that the other store gives for the name. So the table can forget: names that were
// added after the last checkpoint end with a crash, a damaged page begins empty, and pages
// beyond the bound are dropped. It costs sending the block again.
package known

import (
	"encoding/binary"
	"errors"
	"sync"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
)

// The first bytes of the keys of pages, whose number follows in eight bytes: that of the
// store in the upper two, then the slot divided by 512; and of the row of the stores.
const (
	PagePrefix   = 'k'
	StoresPrefix = 'K'
)

// unknownNames is more than any bound, so that they are counted.
const unknownNames = 1 << 60

// Options configure a Table.
type Options struct {
	KV       meta.Reader
	Clock    *pages.Clock
	MaxBytes int64 // bound of the cache of pages
}

// Table is the names of blocks in other stores. It is safe for concurrent use; methods
// that change it must not run during a checkpoint cut. The lock order is: page, stores.
type Table struct {
	pages  *pages.Cache[*page]
	stores *pages.Cache[*stores]
	kv     meta.Reader

	renewing sync.Mutex // held while a damaged row is replaced
}

// NewTable returns the table stored in o.KV.
func NewTable(o Options) *Table {
	return &Table{
		kv: o.KV,
		pages: pages.New(pages.Config[*page]{
			KV: o.KV, Clock: o.Clock, Prefix: PagePrefix, MaxObjects: int(o.MaxBytes / pageBytes),
			Decode: func(_ uint64, stored []byte) (*page, error) { return decodePage(stored) },
		}),
		stores: pages.New(pages.Config[*stores]{
			KV: o.KV, Clock: o.Clock, Prefix: StoresPrefix, MaxObjects: 1,
			Decode: func(_ uint64, stored []byte) (*stores, error) { return decodeStores(stored) },
		}),
	}
}

// pageID returns the number of the page of a slot.
func pageID(number uint16, slot uint64) uint64 {
	return uint64(number)<<(64-numberBits) | slot>>pageShift
}

// run returns how many of slots, of which the first is within the bound, are on the page
// of the first one.
func run(slots []uint64) int {
	n := 1
	for n < len(slots) && slots[n]>>pageShift == slots[0]>>pageShift {
		n++
	}
	return n
}

// Number returns the number of a store, 0 if the table has no names of it.
func (t *Table) Number(id [16]byte) (uint16, error) {
	s, err := t.stores.Lock(0)
	if errors.Is(err, meta.ErrDamaged) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer s.Unlock()
	return s.find(id), nil
}

// Find fills local, which is as long as slots, with the slots of this store for those of
// the store with the number; 0 is not known. What cannot be read is not known.
func (t *Table) Find(number uint16, series uint64, slots []uint64, local []extent.Slot) error {
	clear(local)
	for len(slots) > 0 {
		n := run(slots)
		if slots[0]>>slotBits == 0 {
			p, err := t.pages.Lock(pageID(number, slots[0]))
			if err != nil && !errors.Is(err, meta.ErrDamaged) {
				return err
			}
			if err == nil {
				p.find(series, slots[:n], local)
				p.Unlock()
			}
		}
		slots, local = slots[n:], local[n:]
	}
	return nil
}

func (p *page) find(series uint64, slots []uint64, local []extent.Slot) {
	index := p.seriesIndex(series)
	if index < 0 {
		return
	}
	for i, slot := range slots {
		if at := slot % pageSlots; p.index[at] == uint8(index) {
			local[i] = p.local[at]
		}
	}
}

// Add adds names: local[i] has the data of slots[i] of the store; 0 has none. It returns
// the number of names that the table has.
func (t *Table) Add(id [16]byte, series uint64, slots []uint64, local []extent.Slot) (names int64, err error) {
	s, err := t.lockStores()
	if err != nil {
		return 0, err
	}
	number := s.find(id)
	if number == 0 {
		t.stores.Change(s)
		number = s.add(id)
	}
	s.Unlock()
	if number == 0 {
		return 0, nil
	}
	grown := 0
	for len(slots) > 0 {
		n := run(slots)
		if slots[0]>>slotBits == 0 {
			more, err := t.addTo(pageID(number, slots[0]), series, slots[:n], local)
			grown += more
			if err != nil {
				return 0, errors.Join(err, t.count(grown, nil))
			}
		}
		slots, local = slots[n:], local[n:]
	}
	return names, t.count(grown, &names)
}

// addTo adds names to a page, and returns by how many its number of names grows.
func (t *Table) addTo(id, series uint64, slots []uint64, local []extent.Slot) (grown int, err error) {
	p, err := t.lockPage(id)
	if err != nil {
		return 0, err
	}
	defer p.Unlock()
	index := p.seriesIndex(series)
	if index >= 0 && p.has(index, slots, local) {
		return 0, nil
	}
	t.pages.Change(p)
	had := p.count
	if index < 0 {
		if len(p.series) == maxSeries {
			p.clear()
		}
		index = len(p.series)
		p.series = append(p.series, series)
	}
	for i, slot := range slots {
		if local[i] != 0 {
			p.put(int(slot%pageSlots), index, local[i])
		}
	}
	return p.count - had, nil
}

// has reports whether the page has the names already.
func (p *page) has(index int, slots []uint64, local []extent.Slot) bool {
	for i, slot := range slots {
		at := slot % pageSlots
		if local[i] != 0 && (p.local[at] != local[i] || p.index[at] != uint8(index)) {
			return false
		}
	}
	return true
}

// count adds to the number of names, and says what it is then.
func (t *Table) count(more int, names *int64) error {
	s, err := t.lockStores()
	if err != nil {
		return err
	}
	defer s.Unlock()
	if more != 0 {
		t.stores.Change(s)
		s.names = max(0, s.names+int64(more))
	}
	if names != nil {
		*names = s.names
	}
	return nil
}

// Names returns the number of names in the table.
func (t *Table) Names() (names int64, err error) { return names, t.count(0, &names) }

// lockPage returns a page, a new one in place of a damaged one.
func (t *Table) lockPage(id uint64) (*page, error) {
	return lockOrRenew(t, t.pages, id, func() *page { return &page{} })
}

// lockStores returns the row of the stores. In place of a damaged one, numbers go on after
// those on pages: whose these are is not known any more, so the next Prune drops them.
func (t *Table) lockStores() (*stores, error) {
	return lockOrRenew(t, t.stores, 0, func() *stores {
		s := &stores{last: 1, names: unknownNames}
		// Damage of pages does not matter: some thousand numbers are left out for them.
		_ = t.kv.Scan([]byte{PagePrefix}, func(key, _ []byte) error {
			if id, ok := pageOfKey(key); ok {
				s.last = max(s.last, uint16(id>>(64-numberBits)))
			}
			return nil
		})
		s.last += min(1024, ^uint16(0)-s.last)
		return s
	})
}

// lockOrRenew returns a locked object, a new one where the row is damaged. A row with a
// damaged copy is read from the other one; of one that is lost nothing else can come.
func lockOrRenew[T pages.Object](t *Table, c *pages.Cache[T], id uint64, fresh func() T) (T, error) {
	o, err := c.Lock(id)
	if !errors.Is(err, meta.ErrDamaged) {
		return o, err
	}
	t.renewing.Lock()
	defer t.renewing.Unlock()
	if o, err = c.Lock(id); !errors.Is(err, meta.ErrDamaged) {
		return o, err
	}
	c.Insert(id, fresh())
	return c.Lock(id)
}

// DirtyBytes returns the approximate memory, in bytes, of the pages changed since the last
// checkpoint cut.
func (t *Table) DirtyBytes() int64 { return int64(t.pages.Dirty()) * pageBytes }

// Cut is the table's part of a checkpoint cut.
type Cut struct {
	pages  *pages.Cut[*page]
	stores *pages.Cut[*stores]
}

// Cut takes the table's part of a checkpoint cut.
func (t *Table) Cut() *Cut { return &Cut{pages: t.pages.Cut(), stores: t.stores.Cut()} }

// Parts returns the encoders of the changed objects by the first byte of their keys.
func (c *Cut) Parts() map[byte]func(emit func(meta.Op) error) error {
	return map[byte]func(emit func(meta.Op) error) error{PagePrefix: c.pages.Encode, StoresPrefix: c.stores.Encode}
}

// Done ends the cut after the metadata engine has stored it.
func (c *Cut) Done() { c.pages.Done(); c.stores.Done() }

// Abandon ends a cut that could not be stored; its objects remain dirty.
func (c *Cut) Abandon() { c.pages.Abandon(); c.stores.Abandon() }

// pageOfKey returns the number of the page of a row.
func pageOfKey(key []byte) (id uint64, ok bool) {
	if len(key) != 9 || key[0] != PagePrefix {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}
