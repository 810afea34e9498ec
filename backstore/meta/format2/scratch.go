package format2

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratchPrefix begins the names of directories in which Badger works.
const scratchPrefix = "odx-metadata-"

// scratch is a directory for as long as it is locked: one without a lock was
// left by a process that was killed, and the next one removes it.
type scratch struct {
	dir  string
	lock *os.File // the directory itself
}

// newScratch makes a directory in parent, "" for that for temporary files, and removes
// those that were left there.
func newScratch(parent string) (*scratch, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	left, err := filepath.Glob(filepath.Join(parent, scratchPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		// What another user has left, this one can neither open nor remove.
		if s, err := lockScratch(dir); err == nil {
			_ = s.remove()
		}
	}
	for {
		dir, err := os.MkdirTemp(parent, scratchPrefix)
		if err != nil {
			return nil, err
		}
		s, err := lockScratch(dir)
		// Another process can take it for left over until it is locked.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		return s, nil
	}
}

// lockScratch locks a directory. The error is fs.ErrNotExist when it is gone, and
// EWOULDBLOCK when another process has it locked.
func lockScratch(dir string) (*scratch, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: dir, Err: err}, f.Close())
	}
	var open, named unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &open), unix.Lstat(dir, &named)); err != nil || open.Ino != named.Ino {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, fs.ErrNotExist), f.Close())
	}
	return &scratch{dir, f}, nil
}

// remove removes the directory and what is in it.
func (s *scratch) remove() error { return errors.Join(os.RemoveAll(s.dir), s.lock.Close()) }
