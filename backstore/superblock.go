package backstore

import (
	"cmp"
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
// Of two that are right and differ, the one of the higher generation counts.
// Numbers are big-endian:
//
//	  0  8 magic
//	  8  4 format version
//	 12  4 dedup unit in blocks
//	 16 16 store id
//	 32 32 key of the fingerprints
//	 64  4 CRC-32C of all before
//	 68  8 generation
//	 76 16 identity
//	 92 16 UUID of the file system
//	108  8 inode of the directory
//	116  4 flags
//	120  4 zero
//	124  4 CRC-32C of all before
//
// Format 2 ends after the first checksum. Every format begins like it, so that
// every program can tell which one it is.
const (
	superblockName     = "store"
	superblockMagic    = "odxstore"
	superblockLength   = 128
	superblockLengthV2 = 68
	// formatVersion is raised when an older program could not use the store.
	formatVersion = 3
	// oldestFormat is the first that can be upgraded.
	oldestFormat = 2
)

// flagOldJournal: the journal may have been written by a program of format 2 alone.
const flagOldJournal = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type superblock struct {
	unit           int      // blocks
	id             [16]byte // in the headers of all files
	fingerprintKey [32]byte

	generation uint64
	identity   [16]byte // what initiators and tokens see
	place      vfs.Place
	oldJournal bool
}

// readSuperblock reads one copy of the superblock. The error wraps fs.ErrNotExist
// when there is none, ErrCorrupt when it is damaged, and is a *FormatError when
// it is of another format; what this program knows of that is in sb.
func readSuperblock(fsys vfs.FS, name string) (sb superblock, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return superblock{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return superblock{}, err
	}
	b := make([]byte, min(size, superblockLength))
	if _, err := f.ReadAt(b, 0); err != nil {
		return superblock{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return decodeSuperblock(name, b)
}

func decodeSuperblock(name string, b []byte) (sb superblock, err error) {
	if len(b) < superblockLengthV2 || string(b[:8]) != superblockMagic || !sumIsRight(b[:superblockLengthV2]) {
		return sb, fmt.Errorf("%w: %s is not a store's superblock", ErrCorrupt, name)
	}
	version := binary.BigEndian.Uint32(b[8:])
	copy(sb.id[:], b[16:])
	if version < oldestFormat || version > formatVersion {
		return sb, &FormatError{File: name, Version: int(version)}
	}
	sb.unit = int(binary.BigEndian.Uint32(b[12:]))
	if !validUnit(sb.unit) {
		return sb, fmt.Errorf("%w: %s has a dedup unit of %d blocks", ErrCorrupt, name, sb.unit)
	}
	copy(sb.fingerprintKey[:], b[32:])
	if version == 2 {
		sb.identity, sb.oldJournal = sb.id, true
		return sb, &FormatError{File: name, Version: 2}
	}
	if len(b) < superblockLength || !sumIsRight(b[:superblockLength]) {
		return sb, fmt.Errorf("%w: %s is not a whole superblock", ErrCorrupt, name)
	}
	sb.generation = binary.BigEndian.Uint64(b[68:])
	copy(sb.identity[:], b[76:])
	copy(sb.place.FileSystem[:], b[92:])
	sb.place.Inode = binary.BigEndian.Uint64(b[108:])
	flags := binary.BigEndian.Uint32(b[116:])
	if flags&^flagOldJournal != 0 || binary.BigEndian.Uint32(b[120:]) != 0 {
		return sb, fmt.Errorf("%s has flags %x that this program does not know; use a later version of odx", name, flags)
	}
	sb.oldJournal = flags&flagOldJournal != 0
	return sb, nil
}

// sumIsRight reports whether the last four bytes are the CRC-32C of the others.
func sumIsRight(b []byte) bool {
	end := len(b) - 4
	return binary.BigEndian.Uint32(b[end:]) == crc32.Checksum(b[:end], castagnoli)
}

// FormatError: the store has another format than this program serves. Upgrade
// helps with an older one.
type FormatError struct {
	File    string // the superblock
	Version int
}

func (e *FormatError) Error() string {
	if e.Version < oldestFormat || e.Version > formatVersion {
		return fmt.Sprintf("%s: the store has format %d, this program reads formats %d to %d; use a version of odx that reads format %[2]d",
			e.File, e.Version, oldestFormat, formatVersion)
	}
	return fmt.Sprintf("%s: the store has format %d, this program serves format %d: stop what uses it, and run odx store upgrade", e.File, e.Version, formatVersion)
}

// newSuperblock returns that of a new store.
func newSuperblock(unit int) superblock {
	sb := superblock{unit: unit, generation: 1}
	rand.Read(sb.id[:])
	rand.Read(sb.fingerprintKey[:])
	sb.identity = sb.id
	return sb
}

// write writes one copy of the superblock, in the directory dir.
func (sb *superblock) write(fsys vfs.FS, dir string) error {
	return replaceFile(fsys, dir, superblockName, func(f vfs.File) error {
		_, err := f.WriteAt(sb.encode(formatVersion), 0)
		return err
	})
}

// writeBoth writes both copies of the superblock of the store in dir: at any
// time one is whole.
func (sb *superblock) writeBoth(fsys vfs.FS, dir string) error {
	return cmp.Or(sb.write(fsys, dir), sb.write(fsys, filepath.Join(dir, checkpointDir)))
}

func (sb *superblock) encode(version uint32) []byte {
	b := append([]byte(nil), superblockMagic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(sb.unit))
	b = append(b, sb.id[:]...)
	b = append(b, sb.fingerprintKey[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if version < 3 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, sb.generation)
	b = append(b, sb.identity[:]...)
	b = append(b, sb.place.FileSystem[:]...)
	b = binary.BigEndian.AppendUint64(b, sb.place.Inode)
	var flags uint32
	if sb.oldJournal {
		flags |= flagOldJournal
	}
	b = binary.BigEndian.AppendUint32(b, flags)
	b = binary.BigEndian.AppendUint32(b, 0)
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
