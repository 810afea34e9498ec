package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of Replace.
var (
	// ErrReadOnly: the file cannot be replaced. It is on a read-only file system, is a mount
	// point, or its directory may not be written to.
	ErrReadOnly = errors.New("configuration is read-only")
	// ErrChanged: the file is not what the change was based on.
	ErrChanged = errors.New("configuration has changed in the meantime")
)

// Replace makes text the contents of the configuration file at path, which has to be before
// now. After a crash the file is the one or the other. It keeps its owner and its mode; a
// symbolic link keeps pointing at it. When Replace returns nil, text is durable.
//
// Errors wrap ErrReadOnly or ErrChanged, or are those of the operating system. In each case
// but one nothing has changed: if the directory cannot be synced, the error says that the
// change may not survive a power failure.
func Replace(path string, before, text []byte) error {
	if err := replace(path, before, text); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func replace(path string, before, text []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return changedIfMissing(err)
	}
	old, info, err := open(real)
	if err != nil {
		return changedIfMissing(err)
	}
	defer old.Close()
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrReadOnly)
	}
	unlock, err := lockFor(old, real, info)
	if err != nil {
		return err
	}
	defer unlock()
	current, err := readConfiguration(real)
	if err != nil {
		return changedIfMissing(err)
	}
	if !bytes.Equal(current, before) {
		return ErrChanged
	}
	next := filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+".new")
	if err := writeNext(next, info, text); err != nil {
		return readOnly(err)
	}
	if err := os.Rename(next, real); err != nil {
		return errors.Join(readOnly(err), os.Remove(next))
	}
	if err := syncDirectory(filepath.Dir(real)); err != nil {
		return fmt.Errorf("it has been replaced, but may not survive a power failure: %w", err)
	}
	return nil
}

// lockFor locks the file that is at path, against other calls of Replace.
func lockFor(f *os.File, path string, info fs.FileInfo) (unlock func(), err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another process is replacing it", ErrChanged)
		}
		return nil, err
	}
	unlock = func() { unix.Flock(int(f.Fd()), unix.LOCK_UN) }
	// It may have been replaced before the lock was there.
	if now, err := os.Stat(path); err != nil || !os.SameFile(info, now) {
		unlock()
		return nil, ErrChanged
	}
	return unlock, nil
}

// writeNext creates a durable file at path with the owner and mode of another one.
func writeNext(path string, like fs.FileInfo, text []byte) (err error) {
	if err := removeIfThere(path); err != nil { // of a process that was killed
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if st, ok := like.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("keep its owner: %w", err)
		}
	}
	if err := f.Chmod(like.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return err
	}
	return f.Sync()
}

// readOnly adds ErrReadOnly to errors that say that the file cannot be replaced.
func readOnly(err error) error {
	for _, cause := range []error{fs.ErrPermission, unix.EROFS, unix.EBUSY, unix.EXDEV, unix.ETXTBSY} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", ErrReadOnly, err)
		}
	}
	return err
}

// changedIfMissing makes the error for a file that is not there ErrChanged.
func changedIfMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
