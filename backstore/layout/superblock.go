package layout

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/vfs"
	"odx/blockdev"
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
	SuperblockName   = "store"
	magic            = "odxstore"
	SuperblockLength = 128
	lengthV2         = 68
	// FormatVersion is raised when an older program could not use the store.
	FormatVersion = 3
	// OldestFormat is the first that can be upgraded.
	OldestFormat = 2
)

const (
	// flagOldJournal: the journal may have been written by a program of format 2 alone.
	flagOldJournal = 1
	// flagPebble: the rows of metadata are in Pebble. Programs that cannot read them know of no
	// such flag.
	flagPebble = 2
	// flagShared: the store may have data in segments of other stores, or other stores data in its
	// segments. Programs that know of neither would remove what is needed.
	flagShared = 4
)

// checksum returns the CRC-32C of b.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Superblock says what a store is: nothing else of it can be read without.
type Superblock struct {
	Unit           int      // the longest extent, in blocks
	ID             [16]byte // in the headers of all files
	FingerprintKey [32]byte

	Generation uint64
	Identity   [16]byte // what initiators and tokens see
	Place      vfs.Place
	OldJournal bool
	Engine     meta.Kind // of the rows of metadata
	Shared     bool      // it adopts extents of other stores, or lends them its own
}

// ReadSuperblock reads one copy of the superblock. The error wraps fs.ErrNotExist
// when there is none, ErrCorrupt when it is damaged, and is a *FormatError when
// it is of another format; what this program knows of that is in sb.
func ReadSuperblock(fsys vfs.FS, name string) (sb Superblock, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return Superblock{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return Superblock{}, err
	}
	b := make([]byte, min(size, SuperblockLength))
	if _, err := f.ReadAt(b, 0); err != nil {
		return Superblock{}, fmt.Errorf("%w: %s: %w", blockdev.ErrCorrupt, name, err)
	}
	return DecodeSuperblock(name, b)
}

// DecodeSuperblock decodes the content of the superblock file of that name. It returns
// ErrCorrupt, or a *FormatError for a format other than this program's.
func DecodeSuperblock(name string, b []byte) (sb Superblock, err error) {
	if len(b) < lengthV2 || string(b[:8]) != magic || !sumIsRight(b[:lengthV2]) {
		return sb, fmt.Errorf("%w: %s is not a store's superblock", blockdev.ErrCorrupt, name)
	}
	version := binary.BigEndian.Uint32(b[8:])
	copy(sb.ID[:], b[16:])
	if version < OldestFormat || version > FormatVersion {
		return sb, &FormatError{File: name, Version: int(version)}
	}
	sb.Unit = int(binary.BigEndian.Uint32(b[12:]))
	if !extent.ValidUnit(sb.Unit) {
		return sb, fmt.Errorf("%w: %s has a dedup unit of %d blocks", blockdev.ErrCorrupt, name, sb.Unit)
	}
	copy(sb.FingerprintKey[:], b[32:])
	if version == 2 {
		sb.Identity, sb.OldJournal = sb.ID, true
		return sb, &FormatError{File: name, Version: 2}
	}
	if len(b) < SuperblockLength || !sumIsRight(b[:SuperblockLength]) {
		return sb, fmt.Errorf("%w: %s is not a whole superblock", blockdev.ErrCorrupt, name)
	}
	sb.Generation = binary.BigEndian.Uint64(b[68:])
	copy(sb.Identity[:], b[76:])
	copy(sb.Place.FileSystem[:], b[92:])
	sb.Place.Inode = binary.BigEndian.Uint64(b[108:])
	flags := binary.BigEndian.Uint32(b[116:])
	if flags&^(flagOldJournal|flagPebble|flagShared) != 0 || binary.BigEndian.Uint32(b[120:]) != 0 {
		return sb, fmt.Errorf("%s has flags %x that this program does not know; use a later version of odx", name, flags)
	}
	sb.OldJournal, sb.Shared = flags&flagOldJournal != 0, flags&flagShared != 0
	if flags&flagPebble != 0 {
		sb.Engine = meta.KindPebble
	}
	return sb, nil
}

// sumIsRight reports whether the last four bytes are the CRC-32C of the others.
func sumIsRight(b []byte) bool {
	end := len(b) - 4
	return binary.BigEndian.Uint32(b[end:]) == checksum(b[:end])
}

// FormatError: the store has another format than this program serves. Upgrade
// helps with an older one.
type FormatError struct {
	File    string // the superblock
	Version int
}

func (e *FormatError) Error() string {
	if e.Version < OldestFormat || e.Version > FormatVersion {
		return fmt.Sprintf("%s: the store has format %d, this program reads formats %d to %d; use a version of odx that reads format %[2]d",
			e.File, e.Version, OldestFormat, FormatVersion)
	}
	return fmt.Sprintf("%s: the store has format %d, this program serves format %d: stop what uses it, and run odx store upgrade", e.File, e.Version, FormatVersion)
}

// NewSuperblock returns that of a new store.
func NewSuperblock(unit int) Superblock {
	sb := Superblock{Unit: unit, Generation: 1}
	rand.Read(sb.ID[:])
	rand.Read(sb.FingerprintKey[:])
	sb.Identity = sb.ID
	return sb
}

// Write writes one copy of the superblock, in the directory dir.
func (sb *Superblock) Write(fsys vfs.FS, dir string) error {
	return vfs.ReplaceFile(fsys, dir, SuperblockName, func(f vfs.File) error {
		_, err := f.WriteAt(sb.Encode(FormatVersion), 0)
		return err
	})
}

// WriteBoth writes both copies of the superblock of the store in dir: at any time one is
// whole. If the second cannot be written, the first becomes again what it was: the copy
// with the higher generation would take precedence, and the change has failed.
func (sb *Superblock) WriteBoth(fsys vfs.FS, dir string) error {
	before, unread := readSuperblock(fsys, filepath.Join(dir, SuperblockName))
	if err := sb.Write(fsys, dir); err != nil {
		return err
	}
	err := sb.Write(fsys, filepath.Join(dir, CheckpointDir))
	switch {
	case err == nil:
		return nil
	case errors.Is(unread, fs.ErrNotExist):
		return errors.Join(err, fsys.Remove(filepath.Join(dir, SuperblockName)))
	case unread != nil:
		return errors.Join(err, unread)
	}
	return errors.Join(err, vfs.ReplaceFile(fsys, dir, SuperblockName, func(f vfs.File) error {
		_, err := f.WriteAt(before, 0)
		return err
	}))
}

// readSuperblock reads as much of a file as a superblock can have.
func readSuperblock(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, len((&Superblock{}).Encode(FormatVersion)))
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// Encode returns the content of the file in a version of the format.
func (sb *Superblock) Encode(version uint32) []byte {
	b := append([]byte(nil), magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(sb.Unit))
	b = append(b, sb.ID[:]...)
	b = append(b, sb.FingerprintKey[:]...)
	b = binary.BigEndian.AppendUint32(b, checksum(b))
	if version < 3 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, sb.Generation)
	b = append(b, sb.Identity[:]...)
	b = append(b, sb.Place.FileSystem[:]...)
	b = binary.BigEndian.AppendUint64(b, sb.Place.Inode)
	var flags uint32
	if sb.OldJournal {
		flags |= flagOldJournal
	}
	if sb.Engine == meta.KindPebble {
		flags |= flagPebble
	}
	if sb.Shared {
		flags |= flagShared
	}
	b = binary.BigEndian.AppendUint32(b, flags)
	b = binary.BigEndian.AppendUint32(b, 0)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

// Describe returns what the superblock says, for people; other is not nil for one of another format.
func (sb *Superblock) Describe(other *FormatError) map[string]any {
	version := FormatVersion
	if other != nil {
		version = other.Version
	}
	return map[string]any{
		"format": version, "dedup_unit": sb.Unit * blockdev.BlockLength, "id": fmt.Sprintf("%x", sb.ID), "identity": fmt.Sprintf("%x", sb.Identity),
		"generation": sb.Generation, "file_system": fmt.Sprintf("%x", sb.Place.FileSystem), "inode": sb.Place.Inode, "old_journal": sb.OldJournal,
		"engine": sb.Engine.String(), "shared": sb.Shared,
	}
}
