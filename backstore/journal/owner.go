package journal

import (
	"path/filepath"

	"odx/backstore/vfs"
)

// StoreIDs returns in how many journal files in a directory the id of each store
// stands, as far as their headers are whole. Spare files do not count.
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
