package backstore

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestRepair_DamagedData: what is damaged in segments is named by volume, snapshot and
// range, and stays a read error, next to blocks that are right; it can be written again.
func TestRepair_DamagedData(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{segmentBlocks: 65}}
	d := newDisk()
	want := repairDisk(t, d.options(o))
	damaged := 0
	for name, content := range files(t, d.fs, "/store") {
		if strings.HasSuffix(name, ".seg") {
			for at := 5*BlockLength + 7; at < len(content); at += 9 * BlockLength {
				content[at] ^= 4
				damaged++
			}
			put(t, d.fs, name, content)
		}
	}
	for _, skip := range []bool{true, false} {
		to := map[bool]string{true: "/skipped", false: "/new"}[skip]
		r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: to, SkipData: skip})
		if err != nil {
			t.Fatal(err)
		}
		s := d.openAt(t, to)
		defer s.Close()
		got, lost := readable(t, s)
		if damaged == 0 || len(lost["volume v"]) == 0 || len(lost["file f"]) == 0 {
			t.Fatalf("%d blocks damaged, lost %v", damaged, lost)
		}
		if skip {
			if r.DataRead || r.LostBytes != 0 {
				t.Errorf("without reading the data: %+v", r)
			}
			continue
		}
		wantRepaired(t, s, want, r)
		var bytes int64
		for _, l := range r.Lost {
			if bytes += l.Length; !strings.Contains(l.Reason, "segment 0000000") {
				t.Errorf("%+v", l)
			}
		}
		if !r.DataRead || r.LostBytes != bytes || bytes < int64(len(lost["volume v"])+len(lost["file f"])-1)*BlockLength {
			t.Errorf("%d bytes are lost, %d of them named: %v", r.LostBytes, bytes, lost)
		}
		v, err := s.Volume("v")
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range lost["volume v"] {
			if err := v.WriteAt(ctx, []byte(want["volume v"][off:off+BlockLength]), off); err != nil {
				t.Fatal(err)
			}
		}
		again, still := readable(t, s)
		if len(still["volume v"]) > 0 || again["volume v"] != want["volume v"] || got["volume v"] == want["volume v"] {
			t.Errorf("after they were written again %v are lost", still["volume v"])
		}
		if _, err := s.Scrub(ctx, ScrubOptions{}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	}
}
