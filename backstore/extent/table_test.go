package extent

import (
	"encoding/hex"
	"errors"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

const testUnit = 4

func newTestTable(t testing.TB) (*Table, *Usage) {
	t.Helper()
	kv := meta.NewMem()
	u, err := LoadUsage(kv)
	if err != nil {
		t.Fatal(err)
	}
	return NewTable(Options{KV: kv, Clock: pages.NewClock(), Unit: testUnit, MaxBytes: 8 << 20, Next: 1, Usage: u}), u
}

func mustCreate(t testing.TB, table *Table) (ID, *Extent) {
	t.Helper()
	id := table.Allocate(1)
	x := &Extent{Addr: segment.Addr{Segment: 3, Block: uint32(id) * testUnit}, Blocks: testUnit}
	x.Fingerprint[0] = byte(id)
	x.CRC = [MaxUnit]uint32{1, 2, 3, 4}
	if err := table.Create(id, x); err != nil {
		t.Fatal(err)
	}
	return id, x
}

func slotsOf(table *Table, id ID) []Slot {
	return []Slot{table.Slot(id, 0), table.Slot(id, 1), table.Slot(id, 2), table.Slot(id, 3)}
}

func TestTable_Resolve(t *testing.T) {
	table, _ := newTestTable(t)
	id, x := mustCreate(t, table)
	slots := append(slotsOf(table, id), 0)
	locs := make([]Location, len(slots))
	if err := table.Resolve(slots, locs); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		want := Location{Addr: segment.Addr{Segment: 3, Block: x.Addr.Block + uint32(i)}, CRC: uint32(i + 1)}
		if locs[i] != want {
			t.Errorf("block %d: %+v, want %+v", i, locs[i], want)
		}
	}
	if !locs[4].Hole() {
		t.Error("slot 0 is not a hole")
	}
}

func FuzzPage_Decode(f *testing.F) {
	p := newPage(testUnit)
	p.entries[5] = entry{addr: segment.Addr{Segment: 1, Block: 2}, blocks: 3}
	f.Add(p.Encode())
	f.Add([]byte{1, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePage(testUnit, b)
		if err != nil {
			return
		}
		again, err := decodePage(testUnit, p.Encode())
		if err != nil || again.entries != p.entries {
			t.Fatalf("decoded page differs after another round trip: %v", err)
		}
	})
}

func BenchmarkTable_Resolve(b *testing.B) {
	table, _ := newTestTable(b)
	id, _ := mustCreate(b, table)
	slots, locs := slotsOf(table, id), make([]Location, 4)
	b.ReportAllocs()
	for b.Loop() {
		if err := table.Resolve(slots, locs); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTable_RefUnref adds and removes the references of a leaf.
func BenchmarkTable_RefUnref(b *testing.B) {
	table, _ := newTestTable(b)
	var slots []Slot
	for range 512 / testUnit {
		id, _ := mustCreate(b, table)
		slots = append(slots, slotsOf(table, id)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(table.Ref(slots), table.Unref(slots)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPage_Encode(b *testing.B) {
	p := newPage(testUnit)
	for i := range p.entries {
		p.entries[i].blocks = testUnit
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Encode()
	}
}

// TestLayouts pins the stored form of pages and usage.
func TestLayouts(t *testing.T) {
	p := newPage(2)
	if got := p.Encode(); got != nil {
		t.Errorf("page without extents: %x, want nil", got)
	}
	p.entries[3] = entry{addr: segment.Addr{Segment: 0x0102, Block: 9}, blocks: 2, fp: Fingerprint{0: 0xf0, 31: 0x0f}}
	copy(p.crc(3), []uint32{0x11223344, 0x55667788})
	p.entries[127] = entry{addr: segment.Addr{Segment: 1, Block: 2}, blocks: 1}
	const want = "81" + "08000000000000000000000000000080" +
		"0102" + "0101" + // lengths
		"01" + "0000010200000009" + "01" + "0000000100000002" + // addresses
		"03" + "f00000000000000000000000000000000000000000000000000000000000000f" + "02" +
		"1122334455667788" + "00000000"
	if got := hex.EncodeToString(p.Encode()); got != want {
		t.Errorf("page:\ngot  %s\nwant %s", got, want)
	}
	u := segmentUsage{live: 300, pages: []uint64{1, 5, 6}}
	if got := hex.EncodeToString(u.encode()); got != "ac02"+"010401" {
		t.Errorf("usage: %s", got)
	}
}

// TestPage_EncodedSize bounds the stored bytes per extent for extents of 4 KiB written
// sequentially.
func TestPage_EncodedSize(t *testing.T) {
	p := newPage(1)
	for i := range p.entries {
		p.entries[i] = entry{addr: segment.Addr{Segment: 7, Block: uint32(i + 1)}, blocks: 1, fp: Fingerprint{byte(i + 1)}}
	}
	if got := float64(len(p.Encode())) / pageExtents; got > 36.4 {
		t.Errorf("%.2f bytes per extent", got)
	}
}
