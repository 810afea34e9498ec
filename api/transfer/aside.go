package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrExists reports that a file with the destination's name exists and Existing is
// Refuse.
var ErrExists = errors.New("file exists")

// Existing is how to treat an existing file with the destination's name.
type Existing uint8

// The treatments of an existing file.
const (
	Refuse    Existing = iota // the copy fails with ErrExists
	Overwrite                 // the complete new file replaces it
)

// Finisher is a Disk that is written without its final name and named when it is
// complete. Copy calls Finish at the end. Close without Finish deletes the Disk.
type Finisher interface {
	// Finish names the file, durably.
	Finish(ctx context.Context) error
}

// CreateFile creates a file of size bytes on this machine, or opens a block device, for
// writing. A file is named by Finish: until then an existing file of the name is
// unchanged, even after SIGKILL. A block device is written in place; one that this
// machine uses is ErrDeviceBusy.
func CreateFile(path string, size int64, existing Existing) (Disk, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().IsRegular() && existing == Refuse:
		return nil, fmt.Errorf("%s: %w", path, ErrExists)
	case !info.Mode().IsRegular():
		return openDevice(path, unix.O_EXCL)
	default:
		// The target of a symbolic link is replaced, not the link.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	a, err := openAside(path, existing)
	if err != nil {
		return nil, err
	}
	if info != nil {
		err = a.take(info)
	}
	if err == nil {
		err = a.Truncate(size)
	}
	if err == nil {
		a.file.size, a.file.regular = size, true
		return a, nil
	}
	return nil, errors.Join(err, a.Close())
}

// ErrDeviceBusy reports a block device that is mounted or part of another one.
var ErrDeviceBusy = errors.New("block device in use: mounted, or part of another device")

// OpenUsedDevice opens a block device for writing, even if this machine uses it.
func OpenUsedDevice(path string) (Disk, error) { return openDevice(path, 0) }

// openDevice opens a block device. O_EXCL without O_CREAT fails if the device is
// mounted or part of another one (open(2)).
func openDevice(path string, flags int) (Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: %w", path, ErrDeviceBusy)
	}
	if err != nil {
		return nil, err
	}
	return newFile(f)
}

// Resize implements Growable.
func (a *aside) Resize(_ context.Context, size int64) error {
	if err := a.Truncate(size); err != nil {
		return err
	}
	a.size = size
	return nil
}

// aside is a file without a name (O_TMPFILE), or a hidden file on file systems that do
// not support that.
type aside struct {
	file
	path     string
	existing Existing
	hidden   string // path of the hidden file, or ""
}

// ownFiles is the directory of the open files of this process.
const ownFiles = "/proc/self/fd"

// openAside creates the file in the directory of path, so that it can be linked to
// path.
func openAside(path string, existing Existing) (*aside, error) {
	a := &aside{path: path, existing: existing}
	if _, err := os.Stat(ownFiles); err != nil {
		return a, a.openHidden() // without /proc the file could not be linked
	}
	f, err := os.OpenFile(filepath.Dir(path), os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return a, a.openHidden()
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	a.File = f
	return a, nil
}

// openHidden creates a hidden file, for file systems without O_TMPFILE.
func (a *aside) openHidden() (err error) {
	hidden := a.hiddenName()
	if a.File, err = os.OpenFile(hidden, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("create %s: %w", a.path, err)
	}
	a.hidden = hidden
	return nil
}

// hiddenName returns a random hidden name in the directory of path.
func (a *aside) hiddenName() string {
	dir, name := filepath.Split(a.path)
	return filepath.Join(dir, "."+name[:min(len(name), 100)]+".odx-"+rand.Text())
}

// take sets the mode and, if permitted, the owner of the file to those of the file that
// it replaces.
func (a *aside) take(old os.FileInfo) error {
	if owner, ok := old.Sys().(*syscall.Stat_t); ok {
		_ = a.Chown(int(owner.Uid), int(owner.Gid))
	}
	return a.Chmod(old.Mode().Perm())
}

// Finish implements Finisher.
func (a *aside) Finish(context.Context) error {
	if err := a.Sync(); err != nil {
		return err
	}
	if err := a.name(); err != nil {
		return fmt.Errorf("%s: %w", a.path, err)
	}
	dir, err := os.Open(filepath.Dir(a.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// name names the file.
func (a *aside) name() error {
	if a.existing == Refuse && a.hidden == "" {
		return a.link(a.path)
	}
	if a.hidden == "" {
		hidden := a.hiddenName()
		if err := a.link(hidden); err != nil {
			return err
		}
		a.hidden = hidden
	}
	var err error
	if a.existing == Overwrite {
		err = os.Rename(a.hidden, a.path)
	} else {
		err = a.renameToNew()
	}
	if err == nil {
		a.hidden = ""
	}
	return err
}

// link links the file without a name to a name that does not exist.
func (a *aside) link(to string) error {
	from := fmt.Sprintf("%s/%d", ownFiles, a.Fd())
	err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	return err
}

// renameToNew renames the hidden file to a name that does not exist.
func (a *aside) renameToNew() error {
	err := unix.Renameat2(unix.AT_FDCWD, a.hidden, unix.AT_FDCWD, a.path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// The file system does not support RENAME_NOREPLACE.
		if _, err := os.Lstat(a.path); !errors.Is(err, fs.ErrNotExist) {
			return ErrExists
		}
		return os.Rename(a.hidden, a.path)
	}
	return err
}

// Close implements Disk. It deletes an unfinished file.
func (a *aside) Close() error {
	err := a.file.Close()
	if a.hidden != "" {
		err = errors.Join(err, os.Remove(a.hidden))
	}
	return err
}
