package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"odx/internal/kit/must"
	"odx/owner"
)

// everyFS runs a test with each implementation, in an empty directory.
func everyFS(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := NewMem()
		must.Succeed(t, m.MkdirAll("/a/b"))
		test(t, m, "/a/b")
	})
	t.Run("overlay", func(t *testing.T) {
		m := NewMem()
		must.Succeed(t, m.MkdirAll("/a/b"))
		m.SetHook(func(kind OpKind, name string) error {
			if kind.Changes() {
				t.Errorf("%v of %s reaches the base", kind, name)
			}
			return nil
		})
		test(t, Overlay(m), "/a/b")
	})
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func create(t testing.TB, fsys FS, name, content string) File {
	t.Helper()
	f, err := fsys.Create(name)
	must.Succeed(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	must.Succeed(t, err)
	return f
}

func content(t testing.TB, fsys FS, name string) string {
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

func TestFS_Names(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
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
	})
}

func TestFile_ReadAfterRemove(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f := create(t, fsys, name, "still here")
		defer f.Close()
		must.Succeed(t, fsys.Remove(name))
		must.Succeed(t, create(t, fsys, name, "another").Close())
		p := make([]byte, 10)
		if _, err := f.ReadAt(p, 0); err != nil || string(p) != "still here" {
			t.Errorf("read %q, %v", p, err)
		}
	})
}

func TestFile_WriteBack(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "f"), "as it was")
		must.Succeed(t, f.WriteBack(0, 4))
		must.Succeed(t, f.WriteBack(4, 1<<20)) // beyond the end
		p := make([]byte, 9)
		if _, err := f.ReadAt(p, 0); err != nil || string(p) != "as it was" {
			t.Errorf("read %q, %v", p, err)
		}
		must.Succeed(t, f.Close())
	})
}

func TestFile_Closed(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
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
	})
}

func TestFS_Owner(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
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
	})
}

// A file and a byte slice have the same content after a random history.
func TestFile_Model(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
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
	})
}

func TestOS_Modes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	must.Succeed(t, OS().MkdirAll(dir))
	must.Succeed(t, create(t, OS(), filepath.Join(dir, "f"), "x").Close())
	for name, want := range map[string]fs.FileMode{dir: dirMode | fs.ModeDir, filepath.Join(dir, "f"): fileMode} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func BenchmarkMemWrite4KiB(b *testing.B) {
	m := NewMem()
	f, err := m.Create("f")
	must.Succeed(b, err)
	p := bytes.Repeat([]byte{7}, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(p, int64(i%(64<<8))<<12); err != nil {
			b.Fatal(err)
		}
		if i%256 == 255 {
			must.Succeed(b, f.Sync())
		}
	}
}

func TestFile_Allocate(t *testing.T) {
	everyFS(t, func(t *testing.T, fsys FS, dir string) {
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
	})
}

// A full disk refuses operations that need a new block, and no others.
func TestMem_SetCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(4 * pageLength)
	create := func(name string) File {
		f, err := m.Create(name)
		must.Succeed(t, err)
		return f
	}
	free := func(want int64) {
		t.Helper()
		if n, err := m.Free("/"); err != nil || n != want*pageLength {
			t.Errorf("%d bytes are free, %v, want %d blocks", n, err, want)
		}
	}
	a, b := create("/a"), create("/b")
	must.Succeed(t, a.Allocate(2*pageLength))
	free(2)
	_, err := b.WriteAt(make([]byte, 3*pageLength), 0)
	wantErr(t, "write of 3 blocks into 2", err, syscall.ENOSPC)
	free(2)
	_, err = b.WriteAt(make([]byte, pageLength+1), 0)
	must.Succeed(t, err)
	free(0)
	_, err = a.WriteAt(make([]byte, 2*pageLength), 0)
	must.Succeed(t, err)
	wantErr(t, "allocate", a.Allocate(3*pageLength), syscall.ENOSPC)
	must.Succeed(t, a.Truncate(pageLength))
	free(1)
	must.Succeed(t, m.Rename("/a", "/b"))
	free(3)
	must.Succeed(t, m.Remove("/b"))
	free(4)
	m.SetCapacity(pageLength)
	_, err = create("/c").WriteAt([]byte{1}, pageLength)
	must.Succeed(t, err)
	free(0)
	if m.Used() != pageLength {
		t.Errorf("%d bytes are used", m.Used())
	}
}

// TestOS_NotFiles opens what is not a regular file: that is an error, at once.
func TestOS_NotFiles(t *testing.T) {
	dir := t.TempDir()
	must.Succeed(t, os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	must.Succeed(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must.Succeed(t, os.Symlink("/dev/null", filepath.Join(dir, "device")))
	for _, name := range []string{"directory", "pipe", "device"} {
		for what, open := range map[string]func(string) (File, error){"write": OS().Open, "read": OS().(Reader).OpenToRead} {
			if f, err := open(filepath.Join(dir, name)); err == nil {
				t.Errorf("a %s was opened to %s", name, what)
				f.Close()
			} else if !strings.Contains(err.Error(), name) {
				t.Errorf("%s to %s: %v", name, what, err)
			}
		}
	}
	for _, name := range []string{"pipe", "device"} {
		for what, use := range map[string]func(string) error{
			"list":  func(dir string) error { _, err := OS().List(dir); return err },
			"sync":  OS().SyncDir,
			"place": func(dir string) error { _, err := OS().Place(dir); return err },
		} {
			if err := use(filepath.Join(dir, name)); !errors.Is(err, unix.ENOTDIR) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s of a %s: %v", what, name, err)
			}
		}
	}
}
