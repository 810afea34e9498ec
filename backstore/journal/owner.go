package journal

import (
	"path/filepath"

	"odx/backstore/vfs"
)

// StoreIDs counts the journal files of a directory by the store id in their header. It
// ignores spare files and damaged headers.
func StoreIDs(fsys vfs.FS, dir string) (map[[16]byte]int, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	ids := make(map[[16]byte]int)
	for _, base := range names {
		if _, ok := parseName(base); !ok {
			continue
		}
		if f, err := headerOf(fsys, filepath.Join(dir, base)); err == nil {
			ids[f.header.store]++
		}
	}
	return ids, nil
}
