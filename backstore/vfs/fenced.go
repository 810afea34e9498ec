package vfs

import (
	"errors"

	"odx/owner"
)

// Fenced returns an FS with the contents of base in which every operation on a file or a
// name calls owned first, without a lock and without allocating: a store that is not this
// process's any more is neither changed nor read by it. Files can be closed, and what
// describes a directory as a whole (Owner, Free, Total, Place, MayChange) can be asked.
func Fenced(base FS, owned func() error) FS { return fenced{base, owned} }

type fenced struct {
	base  FS
	owned func() error
}

type fencedFile struct {
	file  File
	owned func() error
}

// opened fences a file.
func (f fenced) opened(open func(name string) (File, error), name string) (File, error) {
	if err := f.owned(); err != nil {
		return nil, err
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &fencedFile{file, f.owned}, nil
}

// change is an operation on names.
func (f fenced) change(do func(name string) error, name string) error {
	if err := f.owned(); err != nil {
		return err
	}
	return do(name)
}

func (f fenced) Create(name string) (File, error) { return f.opened(f.base.Create, name) }
func (f fenced) Open(name string) (File, error)   { return f.opened(f.base.Open, name) }
func (f fenced) Remove(name string) error         { return f.change(f.base.Remove, name) }
func (f fenced) MkdirAll(dir string) error        { return f.change(f.base.MkdirAll, dir) }
func (f fenced) SyncDir(dir string) error         { return f.change(f.base.SyncDir, dir) }
func (f fenced) Owner(dir string) owner.Driver    { return f.base.Owner(dir) }
func (f fenced) Free(dir string) (int64, error)   { return f.base.Free(dir) }
func (f fenced) Total(dir string) (int64, error)  { return f.base.Total(dir) }
func (f fenced) Place(dir string) (Place, error)  { return f.base.Place(dir) }

func (f fenced) Rename(from, to string) error {
	if err := f.owned(); err != nil {
		return err
	}
	return f.base.Rename(from, to)
}

func (f fenced) List(dir string) ([]string, error) {
	if err := f.owned(); err != nil {
		return nil, err
	}
	return f.base.List(dir)
}

// OpenToRead implements Reader, also where base does not.
func (f fenced) OpenToRead(name string) (File, error) {
	if r, ok := f.base.(Reader); ok {
		return f.opened(r.OpenToRead, name)
	}
	return f.Open(name)
}

// MayChange implements Prober: where base does not, every directory may be changed.
func (f fenced) MayChange(dir string) error {
	if p, ok := f.base.(Prober); ok {
		return p.MayChange(dir)
	}
	return nil
}

// HoldNames implements NameHolder: where base does not, names need no room.
func (f fenced) HoldNames(dir string) error {
	if h, ok := f.base.(NameHolder); ok {
		return f.change(h.HoldNames, dir)
	}
	return nil
}

func (f *fencedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.owned(); err != nil {
		return 0, err
	}
	n, err := f.file.ReadAt(p, off)
	if late := f.owned(); late != nil {
		return 0, errors.Join(late, err) // what was read may be another's by now
	}
	return n, err
}

func (f *fencedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.owned(); err != nil {
		return 0, err
	}
	return f.file.WriteAt(p, off)
}

func (f *fencedFile) Sync() error {
	if err := f.owned(); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *fencedFile) WriteBack(off, n int64) error {
	if err := f.owned(); err != nil {
		return err
	}
	return f.file.WriteBack(off, n)
}

func (f *fencedFile) Truncate(size int64) error {
	if err := f.owned(); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *fencedFile) Allocate(n int64) error {
	if err := f.owned(); err != nil {
		return err
	}
	return f.file.Allocate(n)
}

func (f *fencedFile) Size() (int64, error) {
	if err := f.owned(); err != nil {
		return 0, err
	}
	return f.file.Size()
}

func (f *fencedFile) Close() error { return f.file.Close() }
