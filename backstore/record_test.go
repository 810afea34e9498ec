package backstore

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// payload returns the whole payload of a record.
func payload(r record) []byte {
	head, data := r.encode()
	return slices.Concat(head, data)
}

// testUnit is the unit of the stores that the records below are of, in blocks.
const testUnit = 4

// writeOf returns a write of a hole, two new extents and a known block.
func writeOf(inline bool) *writeRecord {
	r := &writeRecord{volume: 300, block: 5, blocks: 8, first: 7, fresh: make([]freshExtent, 2)}
	at, block := 4, uint32(3)
	for i := range r.fresh {
		x := &r.fresh[i]
		x.Blocks, x.Addr, x.at = uint8(i+1), segment.Addr{Segment: 0x0102, Block: block}, at
		x.Fingerprint[0], x.Fingerprint[31] = 0xf0, 0x0f
		for k := range int(x.Blocks) {
			x.CRC[k] = 0x11223344 + uint32(k)*0x44444444
			r.slots[at+k] = extent.ID(7+i).Slot(testUnit, k)
		}
		at += i + 1
		block += uint32(i + 1)
	}
	r.slots[7], r.known[7] = 0x2000, 0x2000
	if inline {
		r.inline = bytes.Repeat([]byte{0xda}, 3*BlockLength)
	}
	return r
}

// goldenRecords are all kinds of records, and what they have been in the journal
// since format 2.
func goldenRecords() []struct {
	name string
	rec  record
	want string
} {
	fp := "f0" + strings.Repeat("00", 30) + "0f"
	runs := ` 00 04
		01 07 02 00000102 00000003
			01 ` + fp + ` 11223344
			02 ` + fp + ` 11223344 55667788
		02 8040 01`
	recs := []Record{{Key: []byte("a"), Value: []byte("b")}, {Key: []byte("c")}}
	row := rows.Volume{Number: 300, Name: "disk", Size: 4096, Flags: rows.FlagFile, Origin: 2, Created: 1}
	for i := range row.ID {
		row.ID[i] = 0x11
	}
	id := strings.Repeat("11", 16)
	return []struct {
		name string
		rec  record
		want string
	}{
		{"write", writeOf(false), `01 ac02 05 08 00` + runs},
		{"write with data", writeOf(true), `01 ac02 05 08 01` + runs + strings.Repeat("da", 3*BlockLength)},
		{"clear", &clearRecord{300, 5, 8}, `02 ac02 05 08`},
		{"map", &mapRecord{300, 5, 6, 7, 8}, `03 ac02 05 06 07 08`},
		{"snapshot", &snapshotRecord{300, 7, []Range{{Offset: 4096, Length: 512}}, recs}, `04 ac02 07 01 8020 8004 02 01 61 01 01 62 01 63 00`},
		{"delete snapshot", &deleteSnapshotRecord{7, recs}, `05 07 02 01 61 01 01 62 01 63 00`},
		{"create volume", &createVolumeRecord{row}, `06 ac02 ` + id + ` 04 6469736b 8020 00 00 02 02 01`},
		{"delete volume", &deleteVolumeRecord{300}, `07 ac02`},
		{"records", &recordsRecord{recs}, `08 02 01 61 01 01 62 01 63 00`},
		{"resize volume", &resizeVolumeRecord{300, 8192}, `09 ac02 8040`},
		{"clone volume", &cloneVolumeRecord{300, 301, row.ID, "c", rows.FlagReadOnly, 1}, `0a ac02 ad02 ` + id + ` 01 63 01 01`},
		{"rename file", &renameFileRecord{300, "to"}, `0b ac02 02 746f`},
		{"replace files", &replaceFilesRecord{300, "to", []uint64{301, 5}}, `0c ac02 02 746f 02 ad02 05`},
	}
}

// TestRecordLayouts: each kind of record is in the journal what it always was,
// and reads as what it was written from.
func TestRecordLayouts(t *testing.T) {
	kinds := make(map[byte]bool)
	for _, g := range goldenRecords() {
		b := payload(g.rec)
		wantLayout(t, g.name, b, g.want)
		kinds[b[0]] = true
		got, err := decodeRecord(b, testUnit)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if again := payload(got); !bytes.Equal(again, b) {
			t.Errorf("%s is written again as %x", g.name, again)
		}
		if !reflect.DeepEqual(got, g.rec) {
			t.Errorf("%s reads as %+v, want %+v", g.name, got, g.rec)
		}
		for n := range len(b) {
			if b[0] == recCreateVolume && n == len(b)-3 {
				continue // a volume as the first stores kept it
			}
			if _, err := decodeRecord(b[:n], testUnit); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, %d bytes of %d: %v, want ErrCorrupt", g.name, n, len(b), err)
			}
		}
		if _, err := decodeRecord(append(b, 0), testUnit); !errors.Is(err, ErrCorrupt) {
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
		f.Add(payload(g.rec))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b, testUnit)
		if err != nil {
			return
		}
		written := payload(r)
		again, err := decodeRecord(written, testUnit)
		if err != nil {
			t.Fatalf("%x decodes and encodes to %x, which gives %v", b, written, err)
		}
		for _, c := range r.changes(&names{later: make(map[uint64]rows.Name)}) {
			if c.Kind == "" || c.What == "" || c.Offset < 0 || c.Length < 0 {
				t.Errorf("%x changes %+v", b, c)
			}
		}
		if payload(again); !reflect.DeepEqual(r, again) {
			t.Errorf("%x decodes as %+v and encodes to %x, which is %+v", b, r, written, again)
		}
	})
}

// TestReplayProvesWhatRecordsKnow: a record that names an extent that does not
// exist is refused, before anything counts its references.
func TestReplayProvesWhatRecordsKnow(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	if err := v.WriteAt(context.Background(), randomBytes(1, 16<<10), 0); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		first extent.Slot
		want  error
	}{
		"an extent":                {s.extents.Slot(1, 0), nil},
		"one that never was":       {s.extents.Slot(2, 0), extent.ErrInconsistent},
		"one with blocks too many": {s.extents.Slot(1, 1), extent.ErrInconsistent},
	} {
		r := writeRecord{volume: v.number, block: 5, blocks: 4}
		for i := range r.blocks {
			r.slots[i], r.known[i] = tt.first+extent.Slot(i), tt.first+extent.Slot(i)
		}
		s.opMu.RLock()
		err := s.redo(journal.Record{LSN: 1, Payload: payload(&r), Durable: true})
		s.opMu.RUnlock()
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

// FuzzReplay feeds journal records with a right checksum and wrong contents to
// a store: replay refuses them or does them, and never panics.
func FuzzReplay(f *testing.F) {
	for _, g := range goldenRecords() {
		f.Add(payload(g.rec))
	}
	hole := writeRecord{volume: 1, block: 5, blocks: 3}
	for _, r := range []record{
		&clearRecord{1, 3, 4},
		&hole,
		&snapshotRecord{1, 9, []Range{{Offset: 4096, Length: 8192}}, []Record{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("gone")}}},
		&mapRecord{1, 0, 1, 0, 256},
		&cloneVolumeRecord{from: 1, number: 2, name: "clone", flags: rows.FlagReadOnly, created: 1 << 30},
		&resizeVolumeRecord{1, 2 << 20},
	} {
		f.Add(payload(r))
	}
	d := newDisk()
	s := d.open(f, 16<<10)
	v, err := s.CreateVolume(context.Background(), "v", 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	n, err := v.Snapshot(context.Background(), []Range{{Length: 1 << 20}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	n.Release()
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		s := d.open(t, 16<<10)
		defer s.closeFiles()
		s.cancel()
		s.background.Wait()
		s.opMu.Lock()
		defer s.opMu.Unlock()
		s.extents.BeginReplay(nil)
		if err := s.redo(journal.Record{LSN: 1, Payload: record, Durable: true}); err == nil {
			if err := s.extents.EndReplay(); err != nil {
				t.Log(err)
			}
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
			r.build()
		}
	})
	p := payload(r)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeRecord(p, testUnit); err != nil {
				b.Fatal(err)
			}
		}
	})
}
