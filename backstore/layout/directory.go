// Package layout is what the directory of a store has: the names of its parts, and the
// superblock, which is there twice. The copy that counts is found among the two, also
// where one is damaged, older, or of another store.
package layout

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"odx/backstore/vfs"
	"odx/owner"
)

// Files and directories of a store.
const (
	LockName      = owner.LockName
	JournalDir    = "journal"
	SegmentDir    = "segments"
	CheckpointDir = "checkpoints"
	ReserveDir    = "reserve"
	// MetadataDirV2 is where format 2 has its metadata.
	MetadataDirV2 = "metadata"
	// CreatingName is a file that is there while a store is being made: what is next
	// to it before there is a superblock holds nothing.
	CreatingName = "creating"
	// UnfinishedName is a file that is there while a repair makes a store in another
	// directory: before there is a superblock, it is part of one.
	UnfinishedName = "unfinished-repair"

	RepairDir   = "repairing"     // the metadata that a repair in place makes
	RepairedTag = "repaired"      // a file in it: it is complete
	DamagedDir  = "before-repair" // what it has replaced
)

// Directory is the directory of a store.
type Directory struct {
	FS   vfs.FS
	Path string
}

// Exists reports whether the store has a file of that name.
func (d Directory) Exists(name string) bool {
	f, err := d.FS.Open(filepath.Join(d.Path, name))
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// Mark makes a file without content, durably.
func (d Directory) Mark(name string) error {
	f, err := d.FS.Create(filepath.Join(d.Path, name))
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), d.FS.SyncDir(d.Path))
}

// Unmark removes such a file, durably.
func (d Directory) Unmark(name string) error {
	if err := d.FS.Remove(filepath.Join(d.Path, name)); err != nil {
		return err
	}
	return d.FS.SyncDir(d.Path)
}

// remains returns a file that belongs to a store, if there is one.
func (d Directory) remains() (string, error) {
	in := []string{".", SegmentDir, JournalDir, CheckpointDir, MetadataDirV2, ReserveDir, RepairDir, DamagedDir}
	if d.Exists(CreatingName) {
		// Only a store that was made has these.
		in = []string{SegmentDir, ReserveDir, DamagedDir}
	}
	for _, in := range in {
		names, err := d.FS.List(filepath.Join(d.Path, in))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if in != "." || name == "checkpoint" {
				return filepath.Join(d.Path, in, name), nil
			}
		}
	}
	return "", nil
}

// Empty removes the files in a directory of the store.
func (d Directory) Empty(name string) error {
	in := filepath.Join(d.Path, name)
	names, err := d.FS.List(in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := d.FS.Remove(filepath.Join(in, name)); err != nil {
			return err
		}
	}
	return d.FS.SyncDir(in)
}

// Superblocks are the directories that have a copy of the superblock, the first
// one first.
func Superblocks(dir string) [2]string {
	return [2]string{dir, filepath.Join(dir, CheckpointDir)}
}
