package segment

import (
	"fmt"
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
	fs  vfs.FS
	dir string
}

// Dir keeps blobs as files in a folder, made if missing: the name of a file is
// the id of the segment, as 0000002a.seg; one that waits to be used again is
// 0000002a.spare. Other files there are left alone.
func Dir(fsys vfs.FS, dir string) (Blobs, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("folder of segments: %w", err)
	}
	return folder{fsys, dir}, nil
}

func (f folder) name(id ID) string { return f.path(id, suffix) }

func (f folder) path(id ID, suffix string) string {
	return filepath.Join(f.dir, fmt.Sprintf("%08x%s", uint32(id), suffix))
}

func (f folder) Create(id ID) (Blob, error) { return f.fs.Create(f.name(id)) }
func (f folder) Open(id ID) (Blob, error)   { return f.fs.Open(f.name(id)) }
func (f folder) Remove(id ID) error         { return f.fs.Remove(f.name(id)) }
func (f folder) SyncList() error            { return f.fs.SyncDir(f.dir) }

func (f folder) List() ([]ID, error) { return f.list(suffix) }

// Retire, Reuse, Discard and Retired implement Reuser.
func (f folder) Retire(id ID) error {
	return f.fs.Rename(f.name(id), f.path(id, spareSuffix))
}

func (f folder) Reuse(retired, id ID) (Blob, error) {
	if err := f.fs.Rename(f.path(retired, spareSuffix), f.name(id)); err != nil {
		return nil, err
	}
	return f.Open(id)
}

func (f folder) Discard(retired ID) error { return f.fs.Remove(f.path(retired, spareSuffix)) }
func (f folder) Retired() ([]ID, error)   { return f.list(spareSuffix) }

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
