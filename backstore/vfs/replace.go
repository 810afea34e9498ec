package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// ReplaceFile writes a file whole or not at all: under a temporary name first,
// made durable, then renamed.
func ReplaceFile(fsys FS, dir, name string, write func(File) error) error {
	tmp := filepath.Join(dir, name+".new")
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := fsys.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}
