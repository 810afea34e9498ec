package backstore

import (
	"context"
	"errors"
	"testing"

	"odx/backstore/extent"
)

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
		var e enc
		e.writeHead(v.number, 5, 4, 0)
		e.knownRun(tt.first, 4)
		s.opMu.RLock()
		err := s.redo(1, e.b)
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
	var e enc
	e.byte(recClear)
	e.uint(1)
	e.uint(3)
	e.uint(4)
	f.Add(e.b)
	e.b = nil
	e.writeHead(1, 5, 4, 0)
	e.holeRun(3)
	e.freshRun(1, []freshExtent{{}})
	f.Add(e.b)
	e.b = nil
	e.byte(recSnapshot)
	e.uint(1)
	e.uint(9)
	e.ranges([]Range{{Offset: 4096, Length: 8192}})
	e.records([]Record{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("gone")}})
	f.Add(e.b)
	e.b = nil
	e.byte(recMap)
	for _, v := range []uint64{1, 0, 1, 0, 256} {
		e.uint(v)
	}
	f.Add(e.b)
	e.b = nil
	e.byte(recCloneVolume)
	e.uint(1)
	e.uint(2)
	e.raw(make([]byte, 16))
	e.bytes([]byte("clone"))
	e.byte(flagReadOnly)
	e.uint(1 << 30)
	f.Add(e.b)
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
		if err := s.redo(1, record); err == nil {
			if err := s.extents.EndReplay(); err != nil {
				t.Log(err)
			}
		}
	})
}
