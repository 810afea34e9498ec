package backstore

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
)

// TestScrub_Metadata damages metadata while the store is open: a scrub mends what
// the other copy has, and says what is lost in both.
func TestScrub_Metadata(t *testing.T) {
	d := newDisk()
	s := d.open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 4<<20)
	if err := errors.Join(v.WriteAt(t.Context(), randomBytes(1, 2<<20), 0), s.Checkpoint(t.Context())); err != nil {
		t.Fatal(err)
	}
	right := files(t, d.fs, "/store")
	flip := func(suffix string) {
		for name, data := range right {
			if filepath.Ext(name) != suffix || filepath.Dir(name) != "/store/checkpoints" {
				continue
			}
			f, err := d.fs.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{data[5000] ^ 1}, 5000); err != nil { // in the first table
				t.Fatal(err)
			}
			f.Close()
		}
	}
	flip(".copy")
	r, err := s.Scrub(t.Context(), ScrubOptions{})
	if err != nil || r.MendedBytes == 0 || len(r.Metadata) > 0 || r.Damaged > 0 {
		t.Errorf("with one copy: %+v, %v", r, err)
	}
	for name, data := range files(t, d.fs, "/store") {
		if filepath.Dir(name) == "/store/checkpoints" && !bytes.Equal(data, right[name]) {
			t.Errorf("%s was not mended", name)
		}
	}
	flip(".copy")
	flip(".rows")
	r, err = s.Scrub(t.Context(), ScrubOptions{})
	if err != nil || len(r.Metadata) == 0 {
		t.Errorf("with no copy: %+v, %v", r, err)
	}
	if listed, _ := s.Damage(); len(listed) == 0 {
		t.Error("no damage is listed")
	}
}
