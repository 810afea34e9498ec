package backstore

import (
	"context"
	"errors"
	"slices"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/record"
	"odx/backstore/rows"
)

// payload returns the whole payload of a record.
func payload(r record.Record) []byte {
	head, data := r.Encode()
	return slices.Concat(head, data)
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
		"an extent":                {s.parts.extents.Slot(1, 0), nil},
		"one that never was":       {s.parts.extents.Slot(2, 0), extent.ErrInconsistent},
		"one with blocks too many": {s.parts.extents.Slot(1, 1), extent.ErrInconsistent},
	} {
		r := record.Write{Volume: v.number, Block: 5, Blocks: 4}
		for i := range r.Blocks {
			r.Slots[i], r.Known[i] = tt.first+extent.Slot(i), tt.first+extent.Slot(i)
		}
		s.opMu.RLock()
		err := (replay{s}).redo(journal.Record{LSN: 1, Payload: payload(&r), Durable: true})
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
	hole := record.Write{Volume: 1, Block: 5, Blocks: 3}
	for _, r := range []record.Record{
		&record.Clear{Volume: 1, First: 3, Count: 4},
		&record.DeleteSnapshot{ID: 1, Records: []Record{{Key: []byte("k")}}},
		&record.CreateVolume{Row: rows.Volume{Number: 3, Name: "disk", Size: 4096, Flags: rows.FlagFile}},
		&record.DeleteVolume{Volume: 1},
		&record.PutClients{Records: []Record{{Key: []byte("a"), Value: []byte("b")}}},
		&record.RenameFile{File: 1, To: "to"},
		&record.ReplaceFiles{File: 1, To: "to", Gone: []uint64{1}},
		&hole,
		&record.Snapshot{Volume: 1, ID: 9, Ranges: []Range{{Offset: 4096, Length: 8192}}, Records: []Record{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("gone")}}},
		&record.Map{Volume: 1, To: 0, Snapshot: 1, From: 0, Count: 256},
		&record.CloneVolume{From: 1, Number: 2, Name: "clone", Flags: rows.FlagReadOnly, Created: 1 << 30},
		&record.ResizeVolume{Volume: 1, Size: 2 << 20},
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
		s.life.cancel()
		s.life.background.Wait()
		s.opMu.Lock()
		defer s.opMu.Unlock()
		s.parts.extents.BeginReplay(nil)
		if err := (replay{s}).redo(journal.Record{LSN: 1, Payload: record, Durable: true}); err == nil {
			if err := s.parts.extents.EndReplay(); err != nil {
				t.Log(err)
			}
		}
	})
}
