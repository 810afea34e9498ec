package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
)

// TestSuperblock_Foreign puts the superblock of another store, of any generation, in
// place of one copy or of both: the files around it tell whose it is.
func TestSuperblock_Foreign(t *testing.T) {
	for _, generation := range []uint64{0, 1, 2, 1000} {
		for _, in := range layout.Superblocks("/store") {
			t.Run(fmt.Sprintf("generation %d in %s", generation, in), func(t *testing.T) {
				m := makeDamageable(t)
				foreign := layout.NewSuperblock(2)
				foreign.Generation = generation
				name := filepath.Join(in, layout.SuperblockName)
				files := maps.Clone(m.files)
				files[name] = foreign.Encode(layout.FormatVersion)
				if v := m.try(t, name+" of another store", files, name); v != nothing {
					t.Errorf("it is %s", v)
				}
				d := m.on(t, files)
				s, err := Open(context.Background(), m.options(d))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if list := s.Mended(); len(list) != 1 || list[0].File != name || !strings.Contains(list[0].Why, fmt.Sprintf("%x", foreign.ID)) {
					t.Errorf("mended: %+v, want %s, of store %x", list, name, foreign.ID)
				}
				if after := filesOf(t, d.fs); !bytes.Equal(after[name], m.files[name]) {
					t.Error("the copy was not mended")
				}
			})
		}
	}
}

// TestSuperblock_BothForeign: no store is opened by what is not its own, and
// nothing changes.
func TestSuperblock_BothForeign(t *testing.T) {
	m := makeDamageable(t)
	delete(m.files, "/store/"+layout.LockName)
	one, other := layout.NewSuperblock(2), layout.NewSuperblock(2)
	for _, tc := range []struct {
		what          string
		first, second []byte
	}{
		{"one store", one.Encode(layout.FormatVersion), one.Encode(layout.FormatVersion)},
		{"two stores", one.Encode(layout.FormatVersion), other.Encode(layout.FormatVersion)},
		{"one store, the other copy is gone", one.Encode(layout.FormatVersion), nil},
		{"one store, the other copy is damaged", one.Encode(layout.FormatVersion), make([]byte, layout.SuperblockLength)},
		{"a store of the format before", one.Encode(layout.FormatVersion - 1), nil},
		{"a store of a later format", one.Encode(layout.FormatVersion + 1), nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			files := maps.Clone(m.files)
			dirs := layout.Superblocks("/store")
			set(files, filepath.Join(dirs[0], layout.SuperblockName), tc.first)
			set(files, filepath.Join(dirs[1], layout.SuperblockName), tc.second)
			d := m.on(t, files)
			_, err := Open(context.Background(), m.options(d))
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/store/store is the superblock of another store") {
				t.Errorf("%v, want ErrCorrupt that names the file", err)
			}
			if after := filesOf(t, d.fs); !maps.EqualFunc(files, after, bytes.Equal) {
				t.Error("the refusal has changed files")
			}
		})
	}
}

// atPlace is a file system that says where each directory is.
type atPlace struct {
	vfs.FS
	place vfs.Place
}

func (p atPlace) Place(string) (vfs.Place, error) { return p.place, nil }

// TestSuperblock_OfACopy: a copy of the store that got an identity of its own has
// the same id in its headers and a later superblock; its place distinguishes it.
func TestSuperblock_OfACopy(t *testing.T) {
	m := makeDamageable(t)
	here, there := vfs.Place{Inode: 1}, vfs.Place{Inode: 2}
	name := filepath.Join("/store", layout.SuperblockName)
	own, err := layout.DecodeSuperblock(name, m.files[name])
	if err != nil {
		t.Fatal(err)
	}
	own.Place = here
	copied := own
	copied.Place, copied.Identity, copied.Generation = there, [16]byte{7}, own.Generation+1
	files := maps.Clone(m.files)
	files[name] = copied.Encode(layout.FormatVersion)
	files[filepath.Join("/store", layout.CheckpointDir, layout.SuperblockName)] = own.Encode(layout.FormatVersion)
	d := m.on(t, files)
	o := m.options(d)
	o.FS = atPlace{d.fs, here}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.ID() != own.Identity || s.Moved() {
		t.Errorf("identity %x, moved %t; want that of this place, %x", s.ID(), s.Moved(), own.Identity)
	}
}
