package backstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/backstore/record"
	"odx/backstore/scrubplan"
)

// TestScrub_MendsEachFile: whatever file of the metadata is damaged or gone while the
// store is open, a scrub puts it right from the other copy, and the journal by a
// checkpoint.
func TestScrub_MendsEachFile(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	v := createVolume(t, s, "v", 8<<20)
	data := randomBytes(1, 1<<20)
	if err := errors.Join(v.WriteAt(ctx, data, 0), s.Checkpoint(ctx), v.WriteAt(ctx, data[:8192], 4<<20), s.Flush(ctx), v.Unmap(ctx, 0, 4096), s.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for name, content := range files(t, d.fs, "/store") {
		in := filepath.Dir(name)
		if in != "/store/checkpoints" && in != "/store/journal" && name != "/store/store" {
			continue
		}
		f, err := d.fs.Open(name)
		if err != nil {
			continue // merged in the meantime
		}
		at := int64(len(content) / 2)
		if in == "/store/journal" {
			if at = int64(bytes.Index(content, []byte{record.KindWrite})); at < 4096 {
				at = 4096 + 30
			}
		}
		if len(content) <= int(at) {
			f.Close()
			continue
		}
		_, err = f.WriteAt([]byte{content[at] ^ 0x40}, at)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		damaged++
		r, err := s.Scrub(ctx, ScrubOptions{})
		if err != nil || len(r.Metadata) > 0 || r.Damaged > 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if in != "/store/journal" && r.MendedBytes == 0 {
			t.Errorf("%s was damaged, and nothing was mended", name)
		}
		if r, err := s.Scrub(ctx, ScrubOptions{}); err != nil || r.MendedBytes != 0 {
			t.Errorf("%s, once more: %+v, %v", name, r, err)
		}
	}
	if damaged < 5 {
		t.Errorf("%d files were damaged, want superblocks, rows and the journal", damaged)
	}
	want := contents(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, 16<<10)
	defer s.Close()
	if found, _ := s.Damage(); len(found) > 0 || !same(contents(t, s), want) {
		t.Errorf("after opening it again: %v", found)
	}
}

// TestScrub_Schedule: the store scrubs itself when it is due, also over a restart, and
// keeps what was found.
func TestScrub_Schedule(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	o := d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, ScrubEvery: time.Hour})
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	v := createVolume(t, s, "v", 1<<20)
	if err := v.WriteAt(ctx, randomBytes(1, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
	for ok := false; !ok; { // the loop begins with it
		if _, ok, err = s.LastScrub(); err != nil {
			t.Fatal(err)
		}
	}
	last, _, _ := s.LastScrub()
	if !last.Ended.IsZero() || time.Since(last.Since) > time.Minute {
		t.Errorf("a new store: %+v", last)
	}
	last.Since = last.Since.Add(-2 * time.Hour)
	if err := errors.Join(putLastScrub(ctx, s, last), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for last.Ended.IsZero() {
		if last, _, err = s.LastScrub(); err != nil {
			t.Fatal(err)
		}
	}
	if last.ReadBytes != 64<<10 || last.Damaged != 0 || last.Since != last.Ended {
		t.Errorf("%+v", last)
	}
	if _, err := Open(ctx, d.options(Options{ScrubEvery: -1})); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "scrub") {
		t.Errorf("a negative time: %v, want ErrInvalid", err)
	}
}

// putLastScrub replaces what is known of the last scrub.
func putLastScrub(ctx context.Context, s *Store, last LastScrub) error {
	value, err := last.Encode()
	if err != nil {
		return err
	}
	return s.PutRecords(ctx, Record{Key: []byte(scrubplan.Key), Value: value})
}
