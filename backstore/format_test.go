package backstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
)

// TestForeignStore: what a program cannot use it says, and leaves alone.
func TestForeignStore(t *testing.T) {
	ctx := context.Background()
	for name, tt := range map[string]struct {
		change func(b []byte) []byte
		is     error
		says   string
	}{
		"a later format": {func(b []byte) []byte {
			sb, err := layout.DecodeSuperblock("", b)
			if err != nil {
				t.Fatal(err)
			}
			return sb.Encode(layout.FormatVersion + 1)
		}, nil, "the store has format 4, this program reads formats 2 to 3; use a version of odx that reads format 4"},
		"an older format": {func(b []byte) []byte {
			sb, err := layout.DecodeSuperblock("", b)
			if err != nil {
				t.Fatal(err)
			}
			return sb.Encode(2)
		}, nil, "/store/store: the store has format 2, this program serves format 3: stop what uses it, and run odx store upgrade"},
		"a damaged superblock":   {func(b []byte) []byte { b[40] ^= 1; return b }, ErrCorrupt, "/store/store"},
		"a damaged identity":     {func(b []byte) []byte { b[80] ^= 1; return b }, ErrCorrupt, "/store/store"},
		"a superblock cut short": {func(b []byte) []byte { return b[:50] }, ErrCorrupt, "/store/store"},
		"no dedup unit": {func([]byte) []byte {
			return (&layout.Superblock{Unit: 3}).Encode(layout.FormatVersion)
		}, ErrCorrupt, "3 blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s := d.open(t, 16<<10)
			createVolume(t, s, "v", 1<<20)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{"/store", "/store/checkpoints"} { // both copies
				path := filepath.Join(dir, layout.SuperblockName)
				put(t, d.fs, path, tt.change(files(t, d.fs, "/store")[path]))
			}
			before := files(t, d.fs, "/store")
			_, err := Open(ctx, d.options(Options{DedupUnit: 16 << 10}))
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v: %s", err, tt.is, tt.says)
			}
			after := files(t, d.fs, "/store")
			for name, content := range before {
				if !bytes.Equal(after[name], content) {
					t.Errorf("%s was changed", name)
				}
			}
			if len(after) != len(before) {
				t.Errorf("there are %d files, were %d", len(after), len(before))
			}
		})
	}
}

// files returns the content of each file in a folder and those below it.
func files(t *testing.T, fsys *vfs.Mem, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, sub := range []string{"", layout.JournalDir, layout.SegmentDir, layout.CheckpointDir} {
		names, err := fsys.List(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := filepath.Join(dir, sub, name)
			f, err := fsys.Open(path)
			if err != nil {
				continue // a folder
			}
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			content := make([]byte, size)
			if _, err := f.ReadAt(content, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			all[path] = content
			f.Close()
		}
	}
	return all
}

// put replaces a file.
func put(t *testing.T, fsys *vfs.Mem, path string, content []byte) {
	t.Helper()
	err := vfs.ReplaceFile(fsys, filepath.Dir(path), filepath.Base(path), func(f vfs.File) error {
		_, err := f.WriteAt(content, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
