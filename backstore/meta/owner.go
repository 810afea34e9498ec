package meta

import (
	"encoding/binary"
	"hash/crc32"
	"path/filepath"

	"odx/backstore/vfs"
)

// StoreIDs counts the files of rows in a directory by the store id in their header or
// trailer. It ignores files in which both are damaged.
func StoreIDs(fsys vfs.FS, dir string) (map[[16]byte]int, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	ids := make(map[[16]byte]int)
	for _, name := range names {
		if _, _, ok := parseRunName(name); !ok {
			continue
		}
		if id, ok := storeID(fsys, filepath.Join(dir, name)); ok {
			ids[id]++
		}
	}
	return ids, nil
}

// storeID returns the store id of a file, or false if header and trailer are damaged.
func storeID(fsys vfs.FS, name string) (id [16]byte, ok bool) {
	f, err := fsys.Open(name)
	if err != nil {
		return id, false
	}
	defer f.Close()
	if l, err := readLayout(f); err == nil {
		return l.store, true
	}
	b := make([]byte, headerLength)
	if _, err := f.ReadAt(b, 0); err != nil || string(b[:8]) != headerMagic ||
		binary.BigEndian.Uint32(b[headerLength-4:]) != crc32.Checksum(b[:headerLength-4], castagnoli) {
		return id, false
	}
	return [16]byte(b[16:32]), true
}

// headerLength is the length of a header without the zeros after it.
const headerLength = 8 + 4 + 4 + 16 + 8 + 8 + 4
