package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// XFS keeps few names of a directory in its inode, and gives the block of a directory
// back when its names fit there again. To make a name then takes a free block, which a
// full disk has not, though the name of another file goes. So directories of XFS hold
// long names that have no other use: they have a block by them, and when there is no room
// for a name in it, one of them makes room.

const (
	heldPrefix = "held-name-"
	heldLength = 250
	// heldNames is how many names a directory holds, and leastHeld how many of them
	// stay: two do not fit into an inode of 512 bytes.
	heldNames = 6
	leastHeld = 2
)

// NameHolder is an FS whose directories may need a free block for a name.
type NameHolder interface {
	// HoldNames makes room in a directory for names that are made by Rename in place
	// of others. It is to be repeated after the file system was full. List does not show
	// what it makes.
	HoldNames(dir string) error
}

// HoldNames implements NameHolder. It does nothing on file systems other than XFS.
func (osFS) HoldNames(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Type) != unix.XFS_SUPER_MAGIC {
		return err
	}
	return holdNames(dir)
}

func holdNames(dir string) error {
	for i := range heldNames {
		f, err := os.OpenFile(heldName(dir, i), os.O_RDONLY|os.O_CREATE, fileMode)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func heldName(dir string, i int) string {
	name := fmt.Sprint(heldPrefix, i)
	return filepath.Join(dir, name+strings.Repeat("-", heldLength-len(name)))
}

// withoutHeld takes the names that a directory only holds off a list.
func withoutHeld(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, heldPrefix) })
}

// rename renames a file. A held name makes room for the new one where there is none.
func rename(from, to string, rename func(from, to string) error) error {
	err := rename(from, to)
	for i := leastHeld; i < heldNames && errors.Is(err, unix.ENOSPC); i++ {
		if os.Remove(heldName(filepath.Dir(to), i)) == nil {
			err = rename(from, to)
		}
	}
	return err
}

// remove removes a file, or a directory that has no other than held names.
func remove(name string) error {
	err := os.Remove(name)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	if rest, rerr := (osFS{}).List(name); rerr != nil || len(rest) > 0 {
		return err // it stays, and so does what it holds
	}
	for i := range heldNames {
		_ = os.Remove(heldName(name, i)) // what is left is the error of the next
	}
	return os.Remove(name)
}
