package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"odx/backstore/vfs"
)

const (
	suffix      = ".seg"
	spareSuffix = ".spare"
)

type folder struct {
	fs     vfs.FS
	dir    string
	giveUp func(path string) error
}

// Dir keeps blobs as files in a folder, made if missing: the name of a file is
// the id of the segment, as 0000002a.seg; one that waits to be used again is
// 0000002a.spare. Other files there are left alone.
func Dir(fsys vfs.FS, dir string) (Blobs, error) {
	return DirGiving(fsys, dir, fsys.Remove)
}

// DirGiving is Dir with a function that takes what is no segment any more and that
// nothing reads, and removes it or has another use for its blocks.
func DirGiving(fsys vfs.FS, dir string, giveUp func(path string) error) (Blobs, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("directory of segments: %w", err)
	}
	return folder{fsys, dir, giveUp}, nil
}

func (f folder) name(id ID) string { return f.path(id, suffix) }

func (f folder) path(id ID, suffix string) string {
	return filepath.Join(f.dir, fmt.Sprintf("%08x%s", uint32(id), suffix))
}

func (f folder) Create(id ID) (Blob, error) { return f.fs.Create(f.name(id)) }
func (f folder) Remove(id ID) error         { return f.fs.Remove(f.name(id)) }
func (f folder) SyncList() error            { return f.fs.SyncDir(f.dir) }

// Open opens a segment for reading alone where it may not be written: what it holds
// is not written again.
func (f folder) Open(id ID) (Blob, error) {
	blob, err := f.fs.Open(f.name(id))
	if r, ok := f.fs.(vfs.Reader); ok && errors.Is(err, fs.ErrPermission) {
		return r.OpenToRead(f.name(id))
	}
	return blob, err
}

func (f folder) List() ([]ID, error) { return f.list(suffix) }

// The following implement Reuser.

func (f folder) Retire(id ID) error {
	blob, err := f.fs.Open(f.name(id)) // what may not be written is of no use
	if err != nil {
		return err
	}
	if err := blob.Close(); err != nil {
		return err
	}
	return f.fs.Rename(f.name(id), f.path(id, spareSuffix))
}

func (f folder) Reuse(retired, id ID) (Blob, error) {
	if err := f.fs.Rename(f.path(retired, spareSuffix), f.name(id)); err != nil {
		return nil, err
	}
	return f.fs.Open(f.name(id))
}

func (f folder) Discard(retired ID) error { return f.fs.Remove(f.path(retired, spareSuffix)) }
func (f folder) GiveUp(retired ID) error  { return f.giveUp(f.path(retired, spareSuffix)) }
func (f folder) Retired() ([]ID, error)   { return f.list(spareSuffix) }

func (f folder) Usable(retired ID) bool {
	blob, err := f.fs.Open(f.path(retired, spareSuffix))
	return err == nil && blob.Close() == nil
}

func (f folder) Prepare(retired ID, bytes int64) (int64, error) {
	path := f.path(retired, spareSuffix)
	blob, err := f.fs.Open(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		blob, err = f.fs.Create(path)
	}
	if err != nil {
		return 0, err
	}
	err = blob.Allocate(bytes)
	if full(err) && !made {
		if bytes, err = blob.Size(); err == nil {
			err = blob.Allocate(bytes)
		}
	}
	if err == nil {
		err = blob.Sync()
	}
	if err = errors.Join(err, blob.Close()); err == nil {
		return bytes, f.SyncList()
	}
	if made {
		err = errors.Join(err, f.fs.Remove(path))
	}
	return 0, err
}

func (f folder) list(suffix string) ([]ID, error) {
	names, err := f.fs.List(f.dir)
	if err != nil {
		return nil, err
	}
	var ids []ID
	for _, name := range names {
		if id, ok := parseName(name, suffix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// parseName is the inverse of name; false when it is no segment's.
func parseName(name, suffix string) (ID, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 8 || strings.ToLower(digits) != digits {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 16, 32)
	return ID(id), err == nil && id != 0
}
