package known

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/internal/kit/must"
)

// TestRows_Encode: what is on disk, byte by byte, as docs/consistency.md has it.
func TestRows_Encode(t *testing.T) {
	p := &page{series: []uint64{0x0102030405060708, 9}}
	for i := range 3 {
		p.put(2+i, 0, extent.Slot(100+i))
	}
	p.put(5, 1, 50)
	s := &stores{last: 3, names: 4, list: []store{{number: 2, id: [16]byte{0xaa}}, {number: 3, id: [16]byte{0xbb}}}}
	for _, c := range []struct {
		name string
		row  []byte
		want string
	}{
		{"page", p.Encode(), "01" + "02" + "0102030405060708" + "0000000000000009" + "04" + "0700c801" + "0301" + "67" + "f407"},
		{"empty page", (&page{}).Encode(), ""},
		{"stores", s.Encode(), "01" + "0003" + "0000000000000004" + "0002aa000000000000000000000000000000" + "0003bb000000000000000000000000000000"},
		{"no stores", (&stores{}).Encode(), ""},
	} {
		if got := hex.EncodeToString(c.row); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// FuzzDecode: no row makes the decoders fail but by an error, and what they read they
// write.
func FuzzDecode(f *testing.F) {
	p := &page{series: []uint64{1, 2}}
	for i := range 300 {
		p.put(i, i/200, extent.Slot(1000+i/7*9+i))
	}
	f.Add(p.Encode())
	f.Add((&stores{last: 1, list: []store{{number: 1}}}).Encode())
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, row []byte) {
		if p, err := decodePage(row); err == nil {
			again, err := decodePage(p.Encode())
			if err != nil || again.local != p.local || again.count != p.count {
				t.Errorf("page %x: %v", row, err)
			}
		}
		if s, err := decodeStores(row); err == nil && s.last != 0 {
			if again := s.Encode(); !bytes.Equal(again, row) {
				t.Errorf("stores %x are %x again", row, again)
			}
		}
	})
}

// TestTable_Random compares a table with a map: names of several stores and series, over
// checkpoints, with passes that drop what is gone.
func TestTable_Random(t *testing.T) {
	type name struct {
		store  byte
		series uint64
		slot   uint64
	}
	rng := rand.New(rand.NewPCG(1, 1))
	kv, clock := meta.NewMem(), pages.NewClock()
	open := func() *Table { return NewTable(Options{KV: kv, Clock: clock, MaxBytes: 1 << 20}) }
	table, want := open(), make(map[name]extent.Slot)
	dead := make(map[extent.Slot]bool)
	id := func(store byte) [16]byte { return [16]byte{store, 1} }
	for step := range 3000 {
		n := name{byte(rng.IntN(3)), rng.Uint64N(3), rng.Uint64N(3000)}
		switch rng.IntN(12) {
		case 0:
			clock.Tick()
			cut := table.Cut()
			var ops []meta.Op
			emit := func(op meta.Op) error { ops = append(ops, op); return nil }
			for _, prefix := range []byte{StoresPrefix, PagePrefix} {
				must.Succeed(t, cut.Parts()[prefix](emit))
			}
			must.Succeed(t, kv.Update(ops))
			cut.Done()
			if rng.IntN(2) == 0 {
				table = open()
				continue
			}
			if rng.IntN(4) > 0 {
				continue
			}
			pass, err := table.NewPrune(0, 1<<40)
			must.Succeed(t, err)
			for more := true; more; {
				more, err = pass.Next(func(slots []extent.Slot) error {
					for i, s := range slots {
						if dead[s] {
							slots[i] = 0
						}
					}
					return nil
				})
				must.Succeed(t, err)
			}
			for n, slot := range want {
				if dead[slot] {
					delete(want, n)
				}
			}
		case 1:
			for range 20 {
				dead[extent.Slot(rng.Uint64N(1<<12))] = true
			}
		default:
			slots, local := make([]uint64, 1+rng.IntN(600)), make([]extent.Slot, 600)
			first := extent.Slot(rng.Uint64N(1 << 12))
			for i := range slots {
				slots[i] = n.slot + uint64(i)
				if first++; rng.IntN(5) > 0 && !dead[first] {
					local[i] = first
					for series := range uint64(3) { // a slot has one name
						delete(want, name{n.store, series, slots[i]})
					}
					want[name{n.store, n.series, slots[i]}] = first
				}
			}
			_, err := table.Add(id(n.store), n.series, slots, local)
			must.Succeed(t, err)
		}
		number, err := table.Number(id(n.store))
		must.Succeed(t, err)
		slots, local := make([]uint64, 600), make([]extent.Slot, 600)
		for i := range slots {
			slots[i] = n.slot + uint64(i)
		}
		must.Succeed(t, table.Find(number, n.series, slots, local))
		for i, got := range local {
			if want := want[name{n.store, n.series, slots[i]}]; number != 0 && got != want {
				t.Fatalf("step %d: slot %d of store %d, series %d is %d, want %d", step, slots[i], n.store, n.series, got, want)
			}
		}
	}
}

// TestTable_DamagedRow: a page that cannot be read is unknown, and begins empty; without
// the row of the stores, nothing on the pages is known any more, and new names do not mix
// with old ones.
func TestTable_DamagedRow(t *testing.T) {
	kv, clock := &brokenKV{Mem: meta.NewMem()}, pages.NewClock()
	open := func() *Table { return NewTable(Options{KV: kv, Clock: clock, MaxBytes: 1 << 20}) }
	table := open()
	a, b := [16]byte{1}, [16]byte{2}
	find := func(id [16]byte, slot uint64) extent.Slot {
		number, err := table.Number(id)
		must.Succeed(t, err)
		local := make([]extent.Slot, 1)
		if number != 0 {
			must.Succeed(t, table.Find(number, 7, []uint64{slot}, local))
		}
		return local[0]
	}
	add := func(id [16]byte, slot uint64, local extent.Slot) {
		_, err := table.Add(id, 7, []uint64{slot}, []extent.Slot{local})
		must.Succeed(t, err)
	}
	add(a, 1, 11)
	add(a, 1000, 12)
	add(b, 1, 13)
	clock.Tick()
	cut := table.Cut()
	for _, encode := range cut.Parts() {
		must.Succeed(t, encode(func(op meta.Op) error { return kv.Update([]meta.Op{op}) }))
	}
	cut.Done()
	table, kv.broken = open(), string(append([]byte{PagePrefix, 0, 1}, make([]byte, 6)...))
	if got := find(a, 1); got != 0 {
		t.Errorf("a name on a page that cannot be read is %d", got)
	}
	if find(a, 1000) != 12 || find(b, 1) != 13 {
		t.Error("names on other pages are lost")
	}
	add(a, 2, 21)
	if find(a, 1) != 0 || find(a, 2) != 21 {
		t.Error("the page did not begin empty")
	}
	table, kv.broken = open(), string(append([]byte{StoresPrefix}, make([]byte, 8)...))
	if find(a, 1000) != 0 {
		t.Error("a name is known of a store without a number")
	}
	add(b, 5, 31)
	if find(b, 5) != 31 || find(b, 1) != 0 || find(a, 1000) != 0 {
		t.Error("names mix with those of before")
	}
	if n, err := table.Names(); err != nil || n < unknownNames {
		t.Errorf("%d names, %v: they are to be counted", n, err)
	}
}

// brokenKV cannot read one row.
type brokenKV struct {
	*meta.Mem
	broken string
}

func (k *brokenKV) Get(key []byte) ([]byte, error) {
	if string(key) == k.broken {
		return nil, meta.ErrDamaged
	}
	return k.Mem.Get(key)
}

// TestAudit: what no table stores is reported.
func TestAudit(t *testing.T) {
	audit := func(rows ...meta.Op) (found []string) {
		kv := meta.NewMem()
		must.Succeed(t, kv.Update(rows))
		must.Succeed(t, Audit(t.Context(), kv, 100, func(finding string) { found = append(found, finding) }))
		return found
	}
	row := func(prefix byte, id uint64, value []byte) meta.Op {
		return meta.Op{Key: binary.BigEndian.AppendUint64([]byte{prefix}, id), Value: value}
	}
	p := &page{series: []uint64{1}}
	p.put(3, 0, 99)
	stored := row(StoresPrefix, 0, (&stores{last: 2, list: []store{{number: 2}}}).Encode())
	if found := audit(stored, row(PagePrefix, 1<<48|7, p.Encode()), row(PagePrefix, 2<<48, p.Encode())); len(found) > 0 {
		t.Errorf("a sound table: %v", found)
	}
	high := &page{series: []uint64{1}}
	high.put(3, 0, 100)
	for name, rows := range map[string][]meta.Op{
		"slot":   {stored, row(PagePrefix, 2<<48, high.Encode())},
		"number": {stored, row(PagePrefix, 3<<48, p.Encode())},
		"page":   {stored, row(PagePrefix, 2<<48, []byte{1, 9})},
		"stores": {row(StoresPrefix, 0, []byte{1})},
		"key":    {stored, {Key: []byte{PagePrefix, 1}, Value: p.Encode()}},
	} {
		if found := audit(rows...); len(found) != 1 {
			t.Errorf("%s: %v", name, found)
		}
	}
}
