package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/rows"
	"odx/backstore/segment"
	"odx/blockdev"
)

// payloadOf returns the whole payload of a record.
func payloadOf(r Record) []byte {
	head, data := r.Encode()
	return slices.Concat(head, data)
}

// testUnit is the unit of the stores that the records below are of, in blocks.
const testUnit = 4

// writeOf returns a write of a hole, two new extents and a known block.
func writeOf(inline bool) *Write {
	r := &Write{Volume: 300, Block: 5, Blocks: 8, First: 7, Fresh: make([]FreshExtent, 2)}
	at, block := 4, uint32(3)
	for i := range r.Fresh {
		x := &r.Fresh[i]
		x.Blocks, x.Addr, x.At = uint8(i+1), segment.Addr{Segment: 0x0102, Block: block}, at
		x.Fingerprint[0], x.Fingerprint[31] = 0xf0, 0x0f
		for k := range int(x.Blocks) {
			x.CRC[k] = 0x11223344 + uint32(k)*0x44444444
			r.Slots[at+k] = extent.ID(7+i).Slot(testUnit, k)
		}
		at += i + 1
		block += uint32(i + 1)
	}
	r.Slots[7], r.Known[7] = 0x2000, 0x2000
	if inline {
		r.Inline = bytes.Repeat([]byte{0xda}, 3*blockdev.BlockLength)
	}
	return r
}

// goldenRecords are all kinds of records, and what they have been in the journal
// since format 2.
func goldenRecords() []struct {
	name string
	rec  Record
	want string
} {
	fp := "f0" + strings.Repeat("00", 30) + "0f"
	runs := ` 00 04
		01 07 02 00000102 00000003
			01 ` + fp + ` 11223344
			02 ` + fp + ` 11223344 55667788
		02 8040 01`
	recs := []Client{{Key: []byte("a"), Value: []byte("b")}, {Key: []byte("c")}}
	row := rows.Volume{Number: 300, Name: "disk", Size: 4096, Flags: rows.FlagFile, Origin: 2, Created: 1}
	for i := range row.ID {
		row.ID[i] = 0x11
	}
	id := strings.Repeat("11", 16)
	return []struct {
		name string
		rec  Record
		want string
	}{
		{"write", writeOf(false), `01 ac02 05 08 00` + runs},
		{"write with data", writeOf(true), `01 ac02 05 08 01` + runs + strings.Repeat("da", 3*blockdev.BlockLength)},
		{"clear", &Clear{300, 5, 8}, `02 ac02 05 08`},
		{"map", &Map{300, 5, 6, 7, 8}, `03 ac02 05 06 07 08`},
		{"snapshot", &Snapshot{300, 7, []blockdev.Range{{Offset: 4096, Length: 512}}, recs}, `04 ac02 07 01 8020 8004 02 01 61 01 01 62 01 63 00`},
		{"delete snapshot", &DeleteSnapshot{7, recs}, `05 07 02 01 61 01 01 62 01 63 00`},
		{"create volume", &CreateVolume{row}, `06 ac02 ` + id + ` 04 6469736b 8020 00 00 02 02 01`},
		{"delete volume", &DeleteVolume{300}, `07 ac02`},
		{"records", &PutClients{recs}, `08 02 01 61 01 01 62 01 63 00`},
		{"resize volume", &ResizeVolume{300, 8192}, `09 ac02 8040`},
		{"clone volume", &CloneVolume{300, 301, row.ID, "c", rows.FlagReadOnly, 1}, `0a ac02 ad02 ` + id + ` 01 63 01 01`},
		{"rename file", &RenameFile{300, "to"}, `0b ac02 02 746f`},
		{"alias", &Alias{300, rows.Alias{Store: row.ID, Place: "disks", Segment: 5}}, `0d ac02 ` + id + ` 05 6469736b73 05`},
		{"replace files", &ReplaceFiles{300, "to", []uint64{301, 5}}, `0c ac02 02 746f 02 ad02 05`},
	}
}

// TestRecordLayouts: each kind of record is in the journal what it always was,
// and reads as what it was written from.
func TestRecordLayouts(t *testing.T) {
	kinds := make(map[byte]bool)
	for _, g := range goldenRecords() {
		b := payloadOf(g.rec)
		wantBytes(t, g.name, b, g.want)
		kinds[b[0]] = true
		got, err := Decode(b, testUnit)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if again := payloadOf(got); !bytes.Equal(again, b) {
			t.Errorf("%s is written again as %x", g.name, again)
		}
		if !reflect.DeepEqual(got, g.rec) {
			t.Errorf("%s reads as %+v, want %+v", g.name, got, g.rec)
		}
		for n := range len(b) {
			if b[0] == kindCreateVolume && n == len(b)-3 {
				continue // a volume as the first stores kept it
			}
			if _, err := Decode(b[:n], testUnit); !errors.Is(err, blockdev.ErrCorrupt) {
				t.Errorf("%s, %d bytes of %d: %v, want ErrCorrupt", g.name, n, len(b), err)
			}
		}
		if _, err := Decode(append(b, 0), testUnit); !errors.Is(err, blockdev.ErrCorrupt) {
			t.Errorf("%s with a byte too many: %v, want ErrCorrupt", g.name, err)
		}
	}
	for kind := range 256 {
		if (newRecord(byte(kind)) != nil) != kinds[byte(kind)] {
			t.Errorf("kind %d: there is a type or an example, but not both", kind)
		}
	}
}

// FuzzRecord decodes payloads: what it accepts it writes as something that it
// reads as the same.
func FuzzRecord(f *testing.F) {
	for _, g := range goldenRecords() {
		f.Add(payloadOf(g.rec))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b, testUnit)
		if err != nil {
			return
		}
		written := payloadOf(r)
		again, err := Decode(written, testUnit)
		if err != nil {
			t.Fatalf("%x decodes and encodes to %x, which gives %v", b, written, err)
		}
		for _, c := range r.Changes(&Names{}) {
			if c.Kind == "" || c.What == "" || c.Offset < 0 || c.Length < 0 {
				t.Errorf("%x changes %+v", b, c)
			}
		}
		if payloadOf(again); !reflect.DeepEqual(r, again) {
			t.Errorf("%x decodes as %+v and encodes to %x, which is %+v", b, r, written, again)
		}
	})
}

// BenchmarkRecord is what a write record costs: nothing of it is allocated where
// the writer keeps it.
func BenchmarkRecord(b *testing.B) {
	r := writeOf(false)
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Build()
		}
	})
	p := payloadOf(r)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(p, testUnit); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// wantBytes compares bytes with hexadecimal digits; spaces are for the reader.
func wantBytes(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if want = strings.Join(strings.Fields(want), ""); hex.EncodeToString(got) != want {
		t.Errorf("%s:\ngot  %x\nwant %s", what, got, want)
	}
}
