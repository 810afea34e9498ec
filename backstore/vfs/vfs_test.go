package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"odx/internal/kit/must"
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
