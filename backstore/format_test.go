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
	"odx/backstore/extent"
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
	sb := superblock{unit: 4, generation: 2, place: vfs.Place{Inode: 0x55}, oldJournal: true}
	for i := range 32 {
		sb.id[i%16], sb.fingerprintKey[i], sb.identity[i%16], sb.place.FileSystem[i%16] = 0x11, byte(i), 0x33, 0x44
	}
	wantLayout(t, "superblock", sb.encode(3), `
		6f647873746f7265 00000003 00000004
		11111111111111111111111111111111
		000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
		02f88e76
		0000000000000002 33333333333333333333333333333333
		44444444444444444444444444444444 0000000000000055
		00000001 00000000 0282bf27`)
	wantLayout(t, "superblock of format 2", sb.encode(2), `
		6f647873746f7265 00000002 00000004
		11111111111111111111111111111111
		000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
		cbf57d1c`)

	v := volumeRow{number: 300, id: sb.id, name: "disk", size: 4096, root: blockmap.Root{Node: 5, Level: 1}, flags: flagReadOnly, origin: 2, created: 1}
	wantLayout(t, "volume", v.encode(), `ac02 11111111111111111111111111111111 04 6469736b 8020 05 01 01 02 01`)
	n := snapshotRow{id: 7, deleted: true, root: blockmap.Root{Node: 9, Level: 2}, ranges: []Range{{Offset: 4096, Length: 512}}}
	wantLayout(t, "snapshot", n.encode(), `07 01 09 02 01 8020 8004`)
	st := state{firstLSN: 1, nextNode: 2, nextExtent: 3, nextSegment: 4, lastVolume: 5, lastSnapshot: 6, pinned: []extent.ID{7, 300}, dropped: []uint64{9}}
	wantLayout(t, "state", st.encode(), `01 02 03 04 05 06 02 07 ac02 09`)
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
			sb, err := decodeSuperblock("", b)
			if err != nil {
				t.Fatal(err)
			}
			return sb.encode(formatVersion + 1)
		}, nil, "the store has format 4, this program reads formats 2 to 3; use a version of odx that reads format 4"},
		"an older format": {func(b []byte) []byte {
			sb, err := decodeSuperblock("", b)
			if err != nil {
				t.Fatal(err)
			}
			return sb.encode(2)
		}, nil, "/store/store: the store has format 2, this program serves format 3: stop what uses it, and run odx store upgrade"},
		"a damaged superblock":   {func(b []byte) []byte { b[40] ^= 1; return b }, ErrCorrupt, "/store/store"},
		"a damaged identity":     {func(b []byte) []byte { b[80] ^= 1; return b }, ErrCorrupt, "/store/store"},
		"a superblock cut short": {func(b []byte) []byte { return b[:50] }, ErrCorrupt, "/store/store"},
		"no dedup unit": {func([]byte) []byte {
			return (&superblock{unit: 3}).encode(formatVersion)
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
				path := filepath.Join(dir, superblockName)
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
	for _, sub := range []string{"", journalDir, segmentDir, checkpointDir} {
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
	err := replaceFile(fsys, filepath.Dir(path), filepath.Base(path), func(f vfs.File) error {
		_, err := f.WriteAt(content, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzSuperblock(f *testing.F) {
	sb := superblock{unit: 1}
	f.Add(sb.encode(formatVersion))
	f.Add(sb.encode(formatVersion + 1))
	f.Add(sb.encode(2))
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := decodeSuperblock("store", b)
		version := formatVersion
		if other := (*FormatError)(nil); errors.As(err, &other) {
			version = other.Version
		} else if err != nil {
			return
		}
		if version < oldestFormat || version > formatVersion {
			return
		}
		if again := sb.encode(uint32(version)); len(b) < len(again) || !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}

// FuzzRows decodes rows of the tables of volumes and snapshots, and the state:
// what they accept they write the same, but for what the first stores left out.
func FuzzRows(f *testing.F) {
	f.Add((&volumeRow{name: "disk", size: 4096, root: blockmap.Root{Node: 5}}).encode())
	f.Add((&snapshotRow{id: 7, ranges: []Range{{Offset: 4096, Length: 512}}}).encode())
	f.Add((&state{firstLSN: 1, pinned: []extent.ID{1}, dropped: []uint64{2, 3}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d := dec{b: slices.Clone(b)}
		if v := d.volumeRow(); d.err == nil {
			again := dec{b: v.encode()}
			if w := again.volumeRow(); again.err != nil || !reflect.DeepEqual(v, w) {
				t.Errorf("volume %x decodes and encodes to %x, which gives %v", b, v.encode(), again.err)
			}
		}
		d = dec{b: slices.Clone(b)}
		if n := d.snapshotRow(); d.err == nil {
			again := dec{b: n.encode()}
			if m := again.snapshotRow(); again.err != nil || !reflect.DeepEqual(n, m) {
				t.Errorf("snapshot %x decodes and encodes to %x, which gives %v", b, n.encode(), again.err)
			}
		}
		if st, err := decodeState(b); err == nil {
			if again, err := decodeState(st.encode()); err != nil || !reflect.DeepEqual(st, again) {
				t.Errorf("state %x decodes and encodes to %x, which gives %v", b, st.encode(), err)
			}
		}
	})
}
