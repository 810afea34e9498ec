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

type directory struct {
	fs     vfs.FS
	dir    string
	giveUp func(path string) error
}

// Dir stores blobs as files in a directory, created if missing. A file is named after
// the segment, as 0000002a.seg, and a retired one 0000002a.spare. Other files are
// ignored.
func Dir(fsys vfs.FS, dir string) (Blobs, error) {
	return DirGiving(fsys, dir, fsys.Remove)
}

// DirGiving is Dir with a function for GiveUp: it removes the file or reuses its
// blocks.
func DirGiving(fsys vfs.FS, dir string, giveUp func(path string) error) (Blobs, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("create segment directory: %w", err)
	}
	return directory{fsys, dir, giveUp}, nil
}

// NeverReused hides that blobs are a Reuser: files of removed segments are removed, and none is kept
// in reserve. Other programs may have a file open then, which must not become another segment.
func NeverReused(b Blobs) Blobs { return struct{ Blobs }{b} }

func (f directory) name(id ID) string { return f.path(id, suffix) }

func (f directory) path(id ID, suffix string) string {
	return filepath.Join(f.dir, fmt.Sprintf("%08x%s", uint32(id), suffix))
}

func (f directory) Create(id ID) (Blob, error) { return f.fs.Create(f.name(id)) }
func (f directory) Remove(id ID) error         { return f.fs.Remove(f.name(id)) }
func (f directory) SyncList() error            { return f.fs.SyncDir(f.dir) }

// Open opens a segment, read-only if it is not writable: existing data is not
// overwritten.
func (f directory) Open(id ID) (Blob, error) {
	blob, err := f.fs.Open(f.name(id))
	if r, ok := f.fs.(vfs.Reader); ok && errors.Is(err, fs.ErrPermission) {
		return r.OpenToRead(f.name(id))
	}
	return blob, err
}

func (f directory) List() ([]ID, error) { return f.list(suffix) }

// The methods below implement Reuser.

func (f directory) Retire(id ID) error {
	blob, err := f.fs.Open(f.name(id)) // a file that is not writable cannot be reused
	if err != nil {
		return err
	}
	if err := blob.Close(); err != nil {
		return err
	}
	return f.fs.Rename(f.name(id), f.path(id, spareSuffix))
}

func (f directory) Reuse(retired, id ID) (Blob, error) {
	if err := f.fs.Rename(f.path(retired, spareSuffix), f.name(id)); err != nil {
		return nil, err
	}
	blob, err := f.fs.Open(f.name(id))
	if err != nil {
		return nil, errors.Join(err, f.fs.Rename(f.name(id), f.path(retired, spareSuffix)))
	}
	return blob, nil
}

func (f directory) Discard(retired ID) error { return f.fs.Remove(f.path(retired, spareSuffix)) }
func (f directory) GiveUp(retired ID) error  { return f.giveUp(f.path(retired, spareSuffix)) }
func (f directory) Retired() ([]ID, error)   { return f.list(spareSuffix) }

func (f directory) Assigned(retired ID, limit int64) (int64, error) {
	blob, err := f.fs.Open(f.path(retired, spareSuffix))
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	if retired >= firstReserveID && blob.Allocate(limit) == nil {
		return limit, nil // an earlier version left blocks past its end
	}
	bytes, err := blob.Size()
	if err != nil {
		return 0, nil
	}
	return allocated(blob, min(bytes, limit)), nil
}

func (f directory) Prepare(retired ID, bytes int64) (int64, error) {
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
			bytes = allocated(blob, bytes)
		}
	}
	if err == nil {
		err = lengthen(blob, bytes)
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

// allocated returns for how many of the first bytes of a blob there are blocks. A write
// that failed on a full disk can have left a hole, and what comes before it is of use.
func allocated(blob Blob, bytes int64) int64 {
	if bytes == 0 {
		return 0
	}
	err := blob.Allocate(bytes)
	if err == nil {
		return bytes
	}
	has, lacks := int64(0), (bytes+BlockLength-1)/BlockLength
	for full(err) && has+1 < lacks {
		middle := (has + lacks) / 2
		tried := blob.Allocate(middle * BlockLength)
		switch {
		case tried == nil:
			has = middle
		case full(tried):
			lacks = middle
		default:
			return 0
		}
	}
	if has < 2 {
		return 0 // a header without data
	}
	return has * BlockLength
}

// lengthen sets the length to bytes, which have blocks, so that Assigned finds it. A
// longer file stays as it is.
func lengthen(blob Blob, bytes int64) error {
	size, err := blob.Size()
	if err != nil || size >= bytes {
		return err
	}
	return blob.Truncate(bytes)
}

func (f directory) list(suffix string) ([]ID, error) {
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

// IsSpare reports whether a file has the name of a retired segment.
func IsSpare(name string) bool {
	_, ok := parseName(name, spareSuffix)
	return ok
}

// parseName is the inverse of name. It returns false for other files.
func parseName(name, suffix string) (ID, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 8 || strings.ToLower(digits) != digits {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 16, 32)
	return ID(id), err == nil && id != 0
}
