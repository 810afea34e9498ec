package extent

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/invariant"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/refs"
	"odx/backstore/segment"
	"odx/internal/kit/must"
)

// engine is a meta.Reader with Update.
type engine interface {
	meta.Reader
	Update(ops []meta.Op) error
}

// readKV records which kinds of pages are read.
type readKV struct {
	*meta.Mem
	read map[byte]bool
}

func (k *readKV) Get(key []byte) ([]byte, error) {
	k.read[key[0]] = true
	return k.Mem.Get(key)
}

// TestTable_CopyChangesCounts: Ref and Unref of copied slots read and change only
// counts; Create changes no counts.
func TestTable_CopyChangesCounts(t *testing.T) {
	kv := &readKV{Mem: meta.NewMem(), read: map[byte]bool{}}
	m := newTableModel(t, kv, testUnit)
	kept, _ := mustCreate(t, m.table)
	if n := m.table.counts.DirtyBytes(); n != 0 {
		t.Errorf("new data changed %d bytes of counts", n)
	}
	m.checkpoint(t)
	m.open(t)
	clear(kv.read)
	slots := slotsOf(m.table, kept)
	if err := errors.Join(m.table.Ref(slots), m.table.Ref(slots), m.table.Unref(slots)); err != nil {
		t.Fatal(err)
	}
	if m.table.cache.Dirty() != 0 {
		t.Error("a copy changed an extent's page")
	}
	if kv.read[PagePrefix] && !invariant.Enabled {
		t.Error("a copy read an extent's page")
	}
	if n, blocks, err := m.table.References(kept); n != 8 || blocks != 4 || err != nil {
		t.Errorf("%d references to %d blocks, %v, want 8 to 4", n, blocks, err)
	}
}

// brokenKV fails reads of keys for which broken returns true.
type brokenKV struct {
	*meta.Mem
	broken func(key []byte) bool
}

var errBroken = errors.New("broken")

func (k *brokenKV) Get(key []byte) ([]byte, error) {
	if k.broken != nil && k.broken(key) {
		return nil, errBroken
	}
	return k.Mem.Get(key)
}

// TestTable_RefAllOrNone: if the counts of one slot cannot be read, Ref adds no
// references.
func TestTable_RefAllOrNone(t *testing.T) {
	kv := &brokenKV{Mem: meta.NewMem()}
	m := newTableModel(t, kv, testUnit)
	var slots []Slot
	for range 3 {
		id, _ := mustCreate(t, m.table)
		slots = append(append(slots, slotsOf(m.table, id)...), 0)
		m.table.Allocate(refs.PerPage)
	}
	m.checkpoint(t)
	for page := range uint64(3) {
		m.open(t)
		kv.broken = func(key []byte) bool {
			return key[0] == CountPrefix && binary.BigEndian.Uint64(key[1:]) == page
		}
		if err := m.table.Ref(slots); !errors.Is(err, errBroken) {
			t.Fatalf("Ref with an unreadable page of counts: %v", err)
		}
		kv.broken = nil
		for _, s := range slots {
			if id := m.table.id(s); id != 0 {
				if n, _, err := m.table.References(id); n != 4 || err != nil {
					t.Errorf("extent %d has %d references, %v, want 4", id, n, err)
				}
			}
		}
	}
}

// TestTable_TouchRepeatedExtent: Touch of slots that name an extent several times, not
// adjacently, reads the rows that freeing the extent needs.
func TestTable_TouchRepeatedExtent(t *testing.T) {
	kv := &brokenKV{Mem: meta.NewMem()}
	m := newTableModel(t, kv, 1)
	var slots []Slot
	for range 2 {
		id := m.table.Allocate(1)
		must.Succeed(t, m.table.Create(id, &Extent{Addr: segment.Addr{Segment: 3, Block: uint32(id)}, Blocks: 1}))
		slots = append(slots, m.table.Slot(id, 0))
	}
	must.Succeed(t, m.table.Ref(slots))
	m.checkpoint(t)
	for _, taken := range [][]Slot{{slots[0], slots[1], slots[0]}, {slots[1], 0, slots[1]}} {
		m.open(t)
		must.Succeed(t, m.table.Touch(taken))
		kv.broken = func([]byte) bool { return true }
		if err := m.table.Unref(taken); err != nil {
			t.Errorf("Unref of %d reads rows that Touch did not: %v", taken, err)
		}
		kv.broken = nil
	}
}

// tableModel is a table and its model: the extents that exist and the slots that refer
// to them.
type tableModel struct {
	kv    engine
	clock *pages.Clock
	unit  int
	usage *Usage
	table *Table

	extents map[ID]*Extent
	pins    map[ID]int
	slots   []Slot // one entry per reference
}

func newTableModel(t must.TB, kv engine, unit int) *tableModel {
	m := &tableModel{kv: kv, clock: pages.NewClock(), unit: unit, extents: map[ID]*Extent{}, pins: map[ID]int{}}
	m.open(t)
	return m
}

// open reopens the table with empty caches.
func (m *tableModel) open(t must.TB) {
	next := ID(1)
	if m.table != nil {
		next = m.table.Next()
	}
	var err error
	m.usage, err = LoadUsage(m.kv)
	must.Succeed(t, err)
	m.table = NewTable(Options{KV: m.kv, Clock: m.clock, Unit: m.unit, MaxBytes: 1, Next: next, Usage: m.usage})
}

// checkpoint stores all changes.
func (m *tableModel) checkpoint(t must.TB) {
	m.clock.Tick()
	cut, ops := m.table.Cut(), m.usage.Cut()
	must.Succeed(t, encodeParts(cut.Parts(), func(op meta.Op) error { ops = append(ops, op); return nil }))
	must.Succeed(t, m.kv.Update(ops))
	cut.Done()
}

// restart reopens the table without pins. Extents that only had pins are freed.
func (m *tableModel) restart(t *rapid.T) {
	pinned := m.table.Pinned()
	m.checkpoint(t)
	m.open(t)
	m.table.BeginReplay(pinned)
	must.Succeed(t, m.table.EndReplay())
	clear(m.pins)
	m.forget()
}

// references counts the slots of each extent.
func (m *tableModel) references() map[ID]int {
	n := map[ID]int{}
	for _, s := range m.slots {
		n[m.table.id(s)]++
	}
	return n
}

// forget removes extents without references and pins from the model.
func (m *tableModel) forget() {
	n := m.references()
	maps.DeleteFunc(m.extents, func(id ID, _ *Extent) bool { return n[id] == 0 && m.pins[id] == 0 })
}

func (m *tableModel) create(t *rapid.T) {
	// Gaps between IDs spread the extents over many pages.
	id := m.table.Allocate(rapid.SampledFrom([]int{1, 1, 1, 100, 500}).Draw(t, "skip"))
	x := &Extent{Addr: segment.Addr{Segment: 3, Block: uint32(id) * uint32(m.unit)}}
	x.Blocks = uint8(rapid.IntRange(1, m.unit).Draw(t, "blocks"))
	x.Fingerprint[0] = byte(id)
	must.Succeed(t, m.table.Create(id, x))
	m.extents[id] = x
	for k := range int(x.Blocks) {
		m.slots = append(m.slots, m.table.Slot(id, k))
	}
}

// draw returns an extent of the model.
func (m *tableModel) draw(t *rapid.T) (ID, *Extent) {
	if len(m.extents) == 0 {
		t.Skip("no extent exists")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.extents))).Draw(t, "id")
	return id, m.extents[id]
}

// ref copies slots, or uses a pin.
func (m *tableModel) ref(t *rapid.T) {
	var slots []Slot
	for range rapid.IntRange(1, 10).Draw(t, "slots") {
		id, x := m.draw(t)
		slots = append(slots, m.table.Slot(id, rapid.IntRange(0, int(x.Blocks)-1).Draw(t, "block")), 0)
	}
	must.Succeed(t, m.table.Ref(slots))
	m.slots = append(m.slots, slices.DeleteFunc(slots, func(s Slot) bool { return s == 0 })...)
}

func (m *tableModel) unref(t *rapid.T) {
	n := min(rapid.IntRange(0, 2*m.unit).Draw(t, "n"), len(m.slots))
	at := rapid.IntRange(0, len(m.slots)-n).Draw(t, "at")
	slots := m.slots[at : at+n]
	must.Succeed(t, m.table.Unref(append(slices.Clone(slots), 0)))
	m.slots = slices.Delete(m.slots, at, at+n)
	m.forget()
}

func (m *tableModel) pin(t *rapid.T) {
	id, x := m.draw(t)
	if ok, err := m.table.Pin(id, &x.Fingerprint, int(x.Blocks)); !ok || err != nil {
		t.Fatalf("extent %d is not pinned: %v", id, err)
	}
	m.pins[id]++
}

func (m *tableModel) unpin(t *rapid.T) {
	if len(m.pins) == 0 {
		t.Skip("nothing is pinned")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.pins))).Draw(t, "id")
	must.Succeed(t, m.table.Unpin(id))
	if m.pins[id]--; m.pins[id] == 0 {
		delete(m.pins, id)
	}
	m.forget()
}

// check compares the table with the model.
func (m *tableModel) check(t *rapid.T) {
	live, want := int64(0), m.references()
	for id, x := range m.extents {
		live += int64(x.Blocks)
		n, blocks, err := m.table.References(id)
		if n != uint64(want[id]) || blocks != int(x.Blocks) || err != nil {
			t.Fatalf("extent %d of %d blocks has %d references, %v, want %d of %d", id, blocks, n, err, x.Blocks, want[id])
		}
	}
	if m.usage.Total() != live {
		t.Fatalf("%d blocks are live, want %d", m.usage.Total(), live)
	}
}

// audit stores a checkpoint and verifies its rows.
func (m *tableModel) audit(t *rapid.T) {
	pinned := m.table.Pinned()
	m.checkpoint(t)
	err := Audit(t.Context(), AuditOptions{
		KV: m.kv, Unit: m.unit, Next: m.table.Next(), Pinned: pinned,
		EachLeaf: func(fn func([]Slot)) error { fn(m.slots); return nil },
		Visit:    func(ID, *Extent) {},
	}, func(finding string) { t.Error(finding) })
	must.Succeed(t, err)
	stored, want := NewStored(m.kv, m.unit), m.references()
	for id := range m.extents {
		if n, _, err := stored.References(id); n != uint64(want[id]) || err != nil {
			t.Errorf("extent %d is stored with %d references, %v, want %d", id, n, err, want[id])
		}
	}
}

// TestTable_Model applies random operations to a table and its model.
func TestTable_Model(t *testing.T) {
	for name, unit := range map[string]int{"unit 1": 1, "unit 4": 4} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newTableModel(t, meta.NewMem(), unit)
				t.Repeat(map[string]func(*rapid.T){
					"create": m.create, "ref": m.ref, "unref": m.unref, "pin": m.pin, "unpin": m.unpin,
					"restart": m.restart, "audit": m.audit, "": m.check,
				})
				for id, n := range m.pins {
					for range n {
						must.Succeed(t, m.table.Unpin(id))
					}
				}
				must.Succeed(t, m.table.Unref(m.slots))
				m.checkpoint(t)
				must.Succeed(t, m.kv.Scan(nil, func(key, _ []byte) error {
					t.Errorf("an empty table stores key %q", key)
					return nil
				}))
			})
		})
	}
}

// TestTable_ConcurrentFree: writers that find an extent and writers that overwrite it
// concurrently add and remove its references and pins. The last removal frees the
// extent.
func TestTable_ConcurrentFree(t *testing.T) {
	table, usage := newTestTable(t)
	for range 200 {
		id, x := mustCreate(t, table)
		slots := slotsOf(table, id)
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				ok, err := table.Pin(id, &x.Fingerprint, 4)
				if ok {
					err = errors.Join(table.Ref(slots), table.Unpin(id), table.Unref(slots))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		must.Succeed(t, table.Unref(slots))
		writers.Wait()
		if _, there, err := table.Get(id); there || err != nil {
			t.Fatalf("an extent without references exists: %v, %v", there, err)
		}
	}
	if got := usage.Total(); got != 0 {
		t.Errorf("%d live blocks, want 0", got)
	}
}

// TestTable_CompactsPages: freeing extents one by one does not change their page each
// time. Freed extents are not returned, and the last frees leave no rows.
func TestTable_CompactsPages(t *testing.T) {
	m := newTableModel(t, meta.NewMem(), 1)
	var ids []ID
	prints := map[ID]*Fingerprint{}
	for range 2 * pageExtents {
		id := m.table.Allocate(1)
		x := &Extent{Addr: segment.Addr{Segment: 3, Block: uint32(id)}, Blocks: 1, Fingerprint: Fingerprint{byte(id)}}
		must.Succeed(t, m.table.Create(id, x))
		prints[id] = &x.Fingerprint
		ids = append(ids, id)
	}
	changes := 0
	for n, id := range ids {
		m.checkpoint(t)
		must.Succeed(t, m.table.Unref([]Slot{m.table.Slot(id, 0)}))
		changes += m.table.cache.Dirty()
		if ok, err := m.table.Pin(id, prints[id], 1); ok || err != nil {
			t.Fatalf("Pin of a freed extent succeeded, %v", err)
		}
		if live := m.usage.Total(); live != int64(len(ids)-n-1) {
			t.Fatalf("%d blocks are live, want %d", live, len(ids)-n-1)
		}
		seen := 0
		for page := range m.table.Pages() {
			must.Succeed(t, m.table.Visit(page, func(ID, *Extent) { seen++ }))
		}
		if seen != len(ids)-n-1 {
			t.Fatalf("%d extents are visited, want %d", seen, len(ids)-n-1)
		}
		if n%50 == 0 {
			m.checkpoint(t)
			m.open(t)
		}
	}
	if changes > 3*10 {
		t.Errorf("freeing %d extents on three pages changed pages %d times", len(ids), changes)
	}
	m.checkpoint(t)
	must.Succeed(t, m.kv.Scan(nil, func(key, _ []byte) error {
		t.Errorf("an empty table stores key %q", key)
		return nil
	}))
}

// TestTable_DamagedCounts: inconsistent counts cause errors, not panics.
func TestTable_DamagedCounts(t *testing.T) {
	table, _ := newTestTable(t)
	id, _ := mustCreate(t, table)
	slots := slotsOf(table, id)
	never := []Slot{table.Slot(id+1, 0)}
	if err := table.Unref(never); !errors.Is(err, ErrInconsistent) {
		t.Errorf("Unref of an extent that does not exist: %v", err)
	}
	if err := table.Unref(append(slotsOf(table, id), slots[0])); !errors.Is(err, ErrInconsistent) {
		t.Errorf("Unref of more references than counted: %v", err)
	}
	c, err := table.counts.Lock(uint64(id))
	must.Succeed(t, err)
	table.counts.Change(c)
	c.Add(uint64(id), -5-c.Extra(uint64(id)))
	c.Unlock()
	if _, _, err := table.References(id); !errors.Is(err, ErrInconsistent) {
		t.Errorf("References of a negative count: %v", err)
	}
	if err := table.Unref(slots[:1]); !errors.Is(err, ErrInconsistent) {
		t.Errorf("Unref with a negative count: %v", err)
	}
	if _, _, err := table.References(id + 1); !errors.Is(err, ErrInconsistent) {
		t.Errorf("References of an extent that does not exist: %v", err)
	}
}
