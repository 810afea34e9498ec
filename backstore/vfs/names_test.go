package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"odx/internal/kit/must"
)

// TestHeldNames: no listing has the names that a directory holds; a rename takes one of
// them after the other where a name finds no room, but for the last two; they come back,
// and do not prevent removing the directory.
func TestHeldNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	fsys := OS()
	must.Succeed(t, fsys.MkdirAll(dir))
	must.Succeed(t, holdNames(dir))
	entries := func() int {
		t.Helper()
		all, err := os.ReadDir(dir)
		must.Succeed(t, err)
		return len(all)
	}
	f, err := fsys.Create(filepath.Join(dir, "a"))
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
	for _, want := range []struct{ full, left int }{{0, 6}, {1, 5}, {2, 3}} {
		calls := 0
		must.Succeed(t, rename(filepath.Join(dir, "a"), filepath.Join(dir, "b"), func(from, to string) error {
			if calls++; calls <= want.full {
				return &os.LinkError{Op: "rename", Old: from, New: to, Err: unix.ENOSPC}
			}
			return os.Rename(from, to)
		}))
		must.Succeed(t, fsys.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "a")))
		if n := entries() - 1; n != want.left {
			t.Errorf("%d names are held, want %d", n, want.left)
		}
		if names, err := fsys.List(dir); err != nil || !slices.Equal(names, []string{"a"}) {
			t.Errorf("list: %q, %v", names, err)
		}
	}
	err = rename(filepath.Join(dir, "a"), filepath.Join(dir, "b"), func(string, string) error { return unix.ENOSPC })
	if !errors.Is(err, unix.ENOSPC) || entries()-1 != leastHeld {
		t.Errorf("no room at all: %v, want ENOSPC, and %d names are held, want %d", err, entries()-1, leastHeld)
	}
	must.Succeed(t, holdNames(dir))
	if n := entries() - 1; n != heldNames {
		t.Errorf("again: %d names are held, want %d", n, heldNames)
	}
	if err := fsys.Remove(dir); !errors.Is(err, unix.ENOTEMPTY) || entries()-1 != heldNames {
		t.Errorf("removing a directory with a file: %v, want ENOTEMPTY, and %d names are held, want %d", err, entries()-1, heldNames)
	}
	must.Succeed(t, fsys.Remove(filepath.Join(dir, "a")))
	must.Succeed(t, fsys.Remove(dir))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}
