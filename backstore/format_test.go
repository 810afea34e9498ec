package backstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"odx/backstore/blockmap"
	"odx/backstore/codec"
	"odx/backstore/extent"
	"odx/backstore/layout"
	"odx/backstore/rows"
	"odx/backstore/vfs"
)

// wantLayout compares bytes with hexadecimal digits; spaces are for the reader.
func wantLayout(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if want = strings.Join(strings.Fields(want), ""); hex.EncodeToString(got) != want {
		t.Errorf("%s:\ngot  %x\nwant %s", what, got, want)
	}
}

// TestLayouts: what stores have on disk is what docs/consistency.md says.
func TestLayouts(t *testing.T) {
	v := rows.Volume{Number: 300, ID: [16]byte(bytes.Repeat([]byte{0x11}, 16)), Name: "disk", Size: 4096, Root: blockmap.Root{Node: 5, Level: 1}, Flags: rows.FlagReadOnly, Origin: 2, Created: 1}
	wantLayout(t, "volume", v.Encode(), `ac02 11111111111111111111111111111111 04 6469736b 8020 05 01 01 02 01`)
	n := rows.Snapshot{ID: 7, Deleted: true, Root: blockmap.Root{Node: 9, Level: 2}, Ranges: []Range{{Offset: 4096, Length: 512}}}
	wantLayout(t, "snapshot", n.Encode(), `07 01 09 02 01 8020 8004`)
	st := rows.Checkpoint{FirstLSN: 1, NextNode: 2, NextExtent: 3, NextSegment: 4, LastVolume: 5, LastSnapshot: 6, Pinned: []extent.ID{7, 300}, Dropped: []uint64{9}}
	wantLayout(t, "state", st.Encode(), `01 02 03 04 05 06 02 07 ac02 09`)
}

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

// FuzzRows decodes rows of the tables of volumes and snapshots, and the state:
// what they accept they write the same, but for what the first stores left out.
func FuzzRows(f *testing.F) {
	f.Add((&rows.Volume{Name: "disk", Size: 4096, Root: blockmap.Root{Node: 5}}).Encode())
	f.Add((&rows.Snapshot{ID: 7, Ranges: []Range{{Offset: 4096, Length: 512}}}).Encode())
	f.Add((&rows.Checkpoint{FirstLSN: 1, Pinned: []extent.ID{1}, Dropped: []uint64{2, 3}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d := codec.Decoder{B: slices.Clone(b)}
		if v := rows.ReadVolume(&d); d.Err == nil {
			again := codec.Decoder{B: v.Encode()}
			if w := rows.ReadVolume(&again); again.Err != nil || !reflect.DeepEqual(v, w) {
				t.Errorf("volume %x decodes and encodes to %x, which gives %v", b, v.Encode(), again.Err)
			}
		}
		d = codec.Decoder{B: slices.Clone(b)}
		if n := rows.ReadSnapshot(&d); d.Err == nil {
			again := codec.Decoder{B: n.Encode()}
			if m := rows.ReadSnapshot(&again); again.Err != nil || !reflect.DeepEqual(n, m) {
				t.Errorf("snapshot %x decodes and encodes to %x, which gives %v", b, n.Encode(), again.Err)
			}
		}
		if st, err := rows.DecodeCheckpoint(b); err == nil {
			if again, err := rows.DecodeCheckpoint(st.Encode()); err != nil || !reflect.DeepEqual(st, again) {
				t.Errorf("state %x decodes and encodes to %x, which gives %v", b, st.Encode(), err)
			}
		}
	})
}
