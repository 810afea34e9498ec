package backstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
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

// TestScrub_SuperblockCannotBeMended: a copy of the superblock that can be neither read nor
// written is reported, and the data is verified all the same.
func TestScrub_SuperblockCannotBeMended(t *testing.T) {
	for _, base := range []string{"/store/" + layout.SuperblockName, filepath.Join("/store", layout.CheckpointDir, layout.SuperblockName)} {
		for _, cause := range []error{syscall.EACCES, syscall.ENOSPC, syscall.EISDIR, syscall.EIO} {
			d := newDisk()
			s := d.open(t, 4<<10)
			data := randomBytes(1, 1<<20)
			if err := errors.Join(createVolume(t, s, "v", 4<<20).WriteAt(t.Context(), data, 0), s.Checkpoint(t.Context())); err != nil {
				t.Fatal(err)
			}
			damageFiles(t, d, data[8192:][:16])
			d.fs.SetHook(func(kind vfs.OpKind, name string) error {
				if name == base || filepath.Dir(name) == filepath.Dir(base) && kind == vfs.OpCreate {
					return &fs.PathError{Op: "open", Path: name, Err: cause}
				}
				return nil
			})
			r, err := s.Scrub(t.Context(), ScrubOptions{})
			if err != nil || len(r.Metadata) == 0 || !strings.Contains(r.Metadata[0], base) || r.Damaged != 1 || r.ReadBytes != r.TotalBytes {
				t.Errorf("%s, %v: %+v, %v", base, cause, r, err)
			}
			d.fs.SetHook(nil)
			if r, err = s.Scrub(t.Context(), ScrubOptions{}); err != nil || len(r.Metadata) > 0 {
				t.Errorf("%s, %v: without the cause: %+v, %v", base, cause, r, err)
			}
			s.Close()
		}
	}
}

// TestScrub_RemovedSegments removes the files of all segments of an open store: check
// reports them, and a scrub moves what is in them, so that a start finds it.
func TestScrub_RemovedSegments(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	data := randomBytes(1, 1<<20)
	if err := errors.Join(createVolume(t, s, "v", 4<<20).WriteAt(ctx, data, 0), s.Checkpoint(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := s.parts.segments.WriteOut(); err != nil {
		t.Fatal(err)
	}
	removed := ""
	for name := range files(t, d.fs, "/store") {
		if strings.HasSuffix(name, ".seg") {
			removed = name
			if err := d.fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	findings, err := s.Check(ctx)
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0], removed) {
		t.Errorf("check: %q, %v", findings, err)
	}
	r, err := s.Scrub(ctx, ScrubOptions{})
	if err != nil || len(r.Metadata) != 1 || !strings.Contains(r.Metadata[0], removed) || r.Damaged > 0 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
	if findings, err = s.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("check after the scrub: %q, %v", findings, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, 4<<10)
	defer s.Close()
	v, err := s.Volume("v")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read after a start: %v", err)
	}
}
