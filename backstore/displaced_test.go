package backstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// TestReplay_SegmentCannotBeWritten: data that only the journal carries durably is not
// lost with the header of its segment; neither is it by a repair.
func TestReplay_SegmentCannotBeWritten(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}
	for _, to := range []string{"open", "repair", "repair in another directory"} {
		t.Run(to, func(t *testing.T) {
			d := newDisk()
			s, err := Open(ctx, d.options(o))
			if err != nil {
				t.Fatal(err)
			}
			v := createVolume(t, s, "v", 1<<20)
			old, fresh := randomBytes(1, 64<<10), randomBytes(2, 16<<10)
			if err := errors.Join(v.WriteAt(ctx, old, 0), s.Checkpoint(ctx), v.WriteAt(ctx, fresh, 512<<10), s.Flush(ctx)); err != nil {
				t.Fatal(err)
			}
			s.life.cancel()
			s.life.background.Wait()
			if err := s.closeFiles(); err != nil {
				t.Fatal(err)
			}
			name := "/store/segments/00000001.seg"
			bad := bytes.Clone(files(t, d.fs, "/store")[name])
			bad[3] ^= 1 // in its header
			put(t, d.fs, name, bad)
			opened := d.options(o)
			switch to {
			case "repair":
				_, err = Repair(ctx, RepairOptions{Options: opened})
			case "repair in another directory":
				_, err = Repair(ctx, RepairOptions{Options: opened, To: "/new"})
				opened.Dir = "/new"
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s, err := Open(ctx, opened)
				if err != nil {
					t.Fatal(err)
				}
				v, err := s.Volume("v")
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, len(fresh))
				if err := v.ReadAt(ctx, p, 512<<10); err != nil || !bytes.Equal(p, fresh) {
					t.Errorf("what the journal carries: %v", err)
				}
				if err := v.ReadAt(ctx, p, 0); !errors.Is(err, ErrCorrupt) {
					t.Errorf("what lay in %s alone: %v, want ErrCorrupt", filepath.Base(name), err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
