package segment

import (
	"encoding/binary"
	"hash/crc32"

	"odx/backstore/vfs"
)

// maxOwners bounds how many headers StoreIDs reads: a store can have very many
// segments, and some of them tell whose they are.
const maxOwners = 16

// StoreIDs returns in how many headers the id of each store stands, of the first and
// the last segments in a directory.
func StoreIDs(fsys vfs.FS, dir string) (map[[16]byte]int, error) {
	f := folder{fs: fsys, dir: dir}
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

// owner returns the id in the header of a segment; false where it has none.
func (f folder) owner(id ID) (store [16]byte, ok bool) {
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
