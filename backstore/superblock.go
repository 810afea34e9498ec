package backstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"odx/backstore/vfs"
)

// The file "store" makes a directory a store. A second copy is in checkpoints/.
// They are written once and never changed: magic (8 bytes), format version, dedup unit in blocks (4 bytes each),
// store id (16), fingerprint key (32), CRC-32C of all before.
const (
	superblockName   = "store"
	superblockMagic  = "odxstore"
	superblockLength = 8 + 4 + 4 + 16 + 32 + 4
	// formatVersion is raised when an older program could not use the store.
	formatVersion = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type superblock struct {
	unit           int // blocks
	id             [16]byte
	fingerprintKey [32]byte
}

// readSuperblock reads one copy of the superblock. The error wraps fs.ErrNotExist
// when there is none, and ErrCorrupt when it is damaged.
func readSuperblock(fsys vfs.FS, name string) (superblock, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return superblock{}, err
	}
	defer f.Close()
	b := make([]byte, superblockLength)
	if _, err := f.ReadAt(b, 0); err != nil {
		return superblock{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return decodeSuperblock(name, b)
}

func decodeSuperblock(name string, b []byte) (superblock, error) {
	var sb superblock
	end := superblockLength - 4
	if string(b[:8]) != superblockMagic || binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return sb, fmt.Errorf("%w: %s is not a store's superblock", ErrCorrupt, name)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return sb, &formatError{name: name, version: v}
	}
	sb.unit = int(binary.BigEndian.Uint32(b[12:]))
	if !validUnit(sb.unit) {
		return sb, fmt.Errorf("%w: %s has a dedup unit of %d blocks", ErrCorrupt, name, sb.unit)
	}
	copy(sb.id[:], b[16:])
	copy(sb.fingerprintKey[:], b[32:])
	return sb, nil
}

// formatError: the superblock is right and of another format.
type formatError struct {
	name    string
	version uint32
}

func (e *formatError) Error() string {
	return fmt.Sprintf("%s: the store has format %d, this program reads format %d; use a version of odx that reads format %[2]d", e.name, e.version, formatVersion)
}

// newSuperblock returns that of a new store.
func newSuperblock(unit int) superblock {
	sb := superblock{unit: unit}
	rand.Read(sb.id[:])
	rand.Read(sb.fingerprintKey[:])
	return sb
}

// write writes one copy of the superblock, in the directory dir.
func (sb *superblock) write(fsys vfs.FS, dir string) error {
	return replaceFile(fsys, dir, superblockName, func(f vfs.File) error {
		_, err := f.WriteAt(sb.encode(formatVersion), 0)
		return err
	})
}

func (sb *superblock) encode(version uint32) []byte {
	b := append([]byte(nil), superblockMagic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(sb.unit))
	b = append(b, sb.id[:]...)
	b = append(b, sb.fingerprintKey[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// replaceFile writes a file whole or not at all: under a temporary name first,
// made durable, then renamed.
func replaceFile(fsys vfs.FS, dir, name string, write func(vfs.File) error) error {
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
