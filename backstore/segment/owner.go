package segment

import (
	"encoding/binary"
	"hash/crc32"

	"odx/backstore/vfs"
)

// maxOwners bounds the number of headers that StoreIDs reads: a sample identifies the
// store.
const maxOwners = 16

// StoreIDs counts the headers by store id, of the first and the last segments in a
// directory.
func StoreIDs(fsys vfs.FS, dir string) (map[[16]byte]int, error) {
	f := directory{fs: fsys, dir: dir}
	list, err := f.List()
	if err != nil {
		return nil, err
	}
	if n := len(list); n > maxOwners {
		list = append(list[:maxOwners/2:maxOwners/2], list[n-maxOwners/2:]...)
	}
	ids := make(map[[16]byte]int)
	for _, id := range list {
		if store, ok := f.owner(id); ok {
			ids[store]++
		}
	}
	return ids, nil
}

// owner returns the store id in the header of a segment, or false if there is none.
func (f directory) owner(id ID) (store [16]byte, ok bool) {
	blob, err := f.Open(id)
	if err != nil {
		return store, false
	}
	defer blob.Close()
	b := make([]byte, headerLength)
	if _, err := blob.ReadAt(b, 0); err != nil || string(b[:8]) != headerMagic ||
		binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return store, false
	}
	return [16]byte(b[16:32]), true
}
