package backstore

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/layout"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/sample"
)

// TestRepair_DirectoryCannotBeChanged: a repair in place that could not end does not begin,
// and leaves no empty directory.
func TestRepair_DirectoryCannotBeChanged(t *testing.T) {
	n := 0
	for _, name := range []string{"", layout.CheckpointDir, layout.JournalDir, layout.SegmentDir, layout.DamagedDir} {
		for _, cause := range []error{syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOSPC} {
			if n++; n%sample.Size(3, 1, 1) > 0 {
				continue
			}
			d, _ := damagedForRepair(t)
			before := filesOf(t, d.fs)
			in := filepath.Join("/store", name)
			d.fs.SetHook(func(kind vfs.OpKind, name string) error {
				if kind == vfs.OpCreate && filepath.Dir(name) == in {
					return &fs.PathError{Op: "create", Path: name, Err: cause}
				}
				return nil
			})
			_, err := Repair(t.Context(), RepairOptions{Options: d.options(repairOptions)})
			d.fs.SetHook(nil)
			if !errors.Is(err, cause) || !strings.Contains(err.Error(), in) || !strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("%s, %v: %v", in, cause, err)
			}
			if after := filesOf(t, d.fs); !maps.EqualFunc(before, after, bytes.Equal) {
				t.Errorf("%s, %v: files were changed", in, cause)
			}
			for _, left := range []string{layout.DamagedDir, layout.RepairDir} {
				if _, err := d.fs.List(filepath.Join("/store", left)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s, %v: %s was left: %v", in, cause, left, err)
				}
			}
		}
	}
}

// TestRepair_FullDisk: a repair in place for which there is no room leaves no directory.
func TestRepair_FullDisk(t *testing.T) {
	d, _ := damagedForRepair(t)
	before := filesOf(t, d.fs)
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpWrite || kind == vfs.OpAllocate {
			return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
		}
		return nil
	})
	_, err := Repair(t.Context(), RepairOptions{Options: d.options(repairOptions)})
	d.fs.SetHook(nil)
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "the store has not changed") {
		t.Errorf("%v", err)
	}
	if after := filesOf(t, d.fs); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files were changed")
	}
	for _, left := range []string{layout.DamagedDir, layout.RepairDir} {
		if _, err := d.fs.List(filepath.Join("/store", left)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left: %v", left, err)
		}
	}
}

// TestRepair_FilesCannotBeReplaced: a superblock that is immutable, and a lock that is a
// directory, are found before anything changes.
func TestRepair_FilesCannotBeReplaced(t *testing.T) {
	d, _ := damagedForRepair(t)
	o := d.options(repairOptions)
	o.FS = immutable{d.fs}
	if _, err := Repair(t.Context(), RepairOptions{Options: o}); !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("the superblock: %v", err)
	}
	o = repairOptions
	o.Dir, o.Log = filepath.Join(t.TempDir(), "store"), logs.Discard()
	repairDisk(t, o)
	lock := filepath.Join(o.Dir, layout.LockName)
	if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(t.Context(), RepairOptions{Options: o}); err == nil || !strings.Contains(err.Error(), lock) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("the lock: %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, layout.DamagedDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was left: %v", err)
	}
}

// immutable is a file system whose superblock may only be read.
type immutable struct{ *vfs.Mem }

func (f immutable) Open(name string) (vfs.File, error) {
	if filepath.Base(name) == layout.SuperblockName && filepath.Base(filepath.Dir(name)) != layout.CheckpointDir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EPERM}
	}
	return f.Mem.Open(name)
}

func (f immutable) OpenToRead(name string) (vfs.File, error) { return f.Mem.Open(name) }
