// Package vfstest is what every implementation of vfs.FS has to pass.
package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/owner"
)

const pageLength = 4096

// Run runs the suite. empty returns a file system with an empty directory.
func Run(t *testing.T, empty func(t *testing.T) (fsys vfs.FS, dir string)) {
	for name, test := range map[string]func(t *testing.T, fsys vfs.FS, dir string){
		"FS_Names":             names,
		"File_ReadAfterRemove": readAfterRemove,
		"File_WriteBack":       writeBack,
		"File_Closed":          closed,
		"FS_Owner":             ownership,
		"File_Model":           model,
		"File_Allocate":        allocate,
	} {
		t.Run(name, func(t *testing.T) {
			fsys, dir := empty(t)
			test(t, fsys, dir)
		})
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func create(t testing.TB, fsys vfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	must.Succeed(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	must.Succeed(t, err)
	return f
}

func content(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must.Succeed(t, err)
	defer f.Close()
	size, err := f.Size()
	must.Succeed(t, err)
	p := make([]byte, size)
	_, err = f.ReadAt(p, 0)
	must.Succeed(t, err)
	return string(p)
}

func names(t *testing.T, fsys vfs.FS, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	must.Succeed(t, create(t, fsys, in("two"), "2").Close())
	must.Succeed(t, create(t, fsys, in("one"), "1").Close())
	must.Succeed(t, fsys.MkdirAll(in("sub/deep")))
	must.Succeed(t, fsys.MkdirAll(in("sub/deep")))

	_, err := fsys.Create(in("one"))
	wantErr(t, "create of a taken name", err, fs.ErrExist)
	_, err = fsys.Create(in("none/file"))
	wantErr(t, "create in a missing directory", err, fs.ErrNotExist)
	_, err = fsys.Open(in("none"))
	wantErr(t, "open of a missing file", err, fs.ErrNotExist)
	wantErr(t, "remove of a missing file", fsys.Remove(in("none")), fs.ErrNotExist)
	wantErr(t, "rename of a missing file", fsys.Rename(in("none"), in("x")), fs.ErrNotExist)
	_, err = fsys.List(in("none"))
	wantErr(t, "list of a missing directory", err, fs.ErrNotExist)
	wantErr(t, "sync of a missing directory", fsys.SyncDir(in("none")), fs.ErrNotExist)
	if fsys.MkdirAll(in("one/below")) == nil {
		t.Error("a directory was created in a file")
	}
	if fsys.Remove(in("sub")) == nil {
		t.Error("a directory that is not empty was removed")
	}

	must.Succeed(t, fsys.Rename(in("one"), in("two")))
	must.Succeed(t, fsys.Remove(in("sub/deep")))
	must.Succeed(t, fsys.SyncDir(dir))
	names, err := fsys.List(dir)
	must.Succeed(t, err)
	if want := []string{"sub", "two"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	if got := content(t, fsys, in("two")); got != "1" {
		t.Errorf("renamed file has content %q", got)
	}
}

func readAfterRemove(t *testing.T, fsys vfs.FS, dir string) {
	name := filepath.Join(dir, "f")
	f := create(t, fsys, name, "still here")
	defer f.Close()
	must.Succeed(t, fsys.Remove(name))
	must.Succeed(t, create(t, fsys, name, "another").Close())
	p := make([]byte, 10)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "still here" {
		t.Errorf("read %q, %v", p, err)
	}
}

func writeBack(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, filepath.Join(dir, "f"), "as it was")
	must.Succeed(t, f.WriteBack(0, 4))
	must.Succeed(t, f.WriteBack(4, 1<<20)) // beyond the end
	p := make([]byte, 9)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "as it was" {
		t.Errorf("read %q, %v", p, err)
	}
	must.Succeed(t, f.Close())
}

func closed(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, filepath.Join(dir, "f"), "x")
	must.Succeed(t, f.Close())
	_, err := f.ReadAt(make([]byte, 1), 0)
	wantErr(t, "read", err, fs.ErrClosed)
	_, err = f.WriteAt(make([]byte, 1), 0)
	wantErr(t, "write", err, fs.ErrClosed)
	_, err = f.Size()
	wantErr(t, "size", err, fs.ErrClosed)
	wantErr(t, "sync", f.Sync(), fs.ErrClosed)
	wantErr(t, "write back", f.WriteBack(0, 1), fs.ErrClosed)
	wantErr(t, "truncate", f.Truncate(0), fs.ErrClosed)
	wantErr(t, "close", f.Close(), fs.ErrClosed)
}

func ownership(t *testing.T, fsys vfs.FS, dir string) {
	o, err := owner.Claim(t.Context(), fsys.Owner(dir))
	must.Succeed(t, err)
	_, err = owner.Claim(t.Context(), fsys.Owner(dir))
	wantErr(t, "second owner", err, owner.ErrHeld)
	must.Succeed(t, o.Release())
	o, err = owner.Wait(t.Context(), fsys.Owner(dir))
	must.Succeed(t, err)
	must.Succeed(t, o.Release())
	_, err = owner.Claim(t.Context(), fsys.Owner(filepath.Join(dir, "none")))
	wantErr(t, "owner of a missing directory", err, fs.ErrNotExist)
}

// A file and a byte slice have the same content after a random history.
func model(t *testing.T, fsys vfs.FS, dir string) {
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		name := filepath.Join(dir, "file")
		f, err := fsys.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { f.Close(); fsys.Remove(name) }()
		var model []byte
		offset := rapid.Int64Range(0, 3*pageLength)
		grow := func(size int64) {
			if n := size - int64(len(model)); n > 0 {
				model = append(model, make([]byte, n)...)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p := rapid.SliceOfN(rapid.Byte(), 0, 2*pageLength).Draw(t, "bytes")
				off := offset.Draw(t, "offset")
				if n, err := f.WriteAt(p, off); n != len(p) || err != nil {
					t.Fatalf("WriteAt: %d, %v", n, err)
				}
				if len(p) > 0 {
					grow(off + int64(len(p)))
					copy(model[off:], p)
				}
			},
			"read": func(t *rapid.T) {
				off, n := offset.Draw(t, "offset"), rapid.IntRange(1, 2*pageLength).Draw(t, "length")
				want := model[min(off, int64(len(model))):min(off+int64(n), int64(len(model)))]
				p := make([]byte, n)
				got, err := f.ReadAt(p, off)
				if got != len(want) || !bytes.Equal(p[:got], want) || (err == io.EOF) != (got < n) {
					t.Fatalf("ReadAt(%d at %d): %d, %v; want %d bytes of the model", n, off, got, err, len(want))
				}
			},
			"truncate": func(t *rapid.T) {
				size := offset.Draw(t, "size")
				if err := f.Truncate(size); err != nil {
					t.Fatal(err)
				}
				grow(size)
				model = model[:size]
			},
			"sync": func(t *rapid.T) {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if size, err := f.Size(); err != nil || size != int64(len(model)) {
					t.Fatalf("size %d, %v; want %d", size, err, len(model))
				}
			},
		})
	})
}

func allocate(t *testing.T, fsys vfs.FS, dir string) {
	f, err := fsys.Create(filepath.Join(dir, "f"))
	must.Succeed(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("data"), 0)
	must.Succeed(t, err)
	must.Succeed(t, f.Allocate(1<<20))
	size, err := f.Size()
	if err != nil || size != 4 {
		t.Errorf("size is %d, %v, want it unchanged", size, err)
	}
	_, err = f.WriteAt([]byte("more"), 1<<20-4)
	must.Succeed(t, err)
	p := make([]byte, 8)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "data\x00\x00\x00\x00" {
		t.Errorf("read %q, %v", p, err)
	}
}
