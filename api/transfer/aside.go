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

// ErrExists: there is a file of the destination's name, and it was not asked for that
// it is replaced.
var ErrExists = errors.New("there is a file of that name already")

// Existing says what becomes of a file that has the destination's name.
type Existing uint8

// What can become of it.
const (
	Refuse    Existing = iota // the copy is refused: ErrExists
	Overwrite                 // the new file takes its place when it is whole
)

// Finisher is the Disk that is made aside and gets its name when it is whole. Copy
// calls Finish in the end; a Disk that is closed without it leaves nothing.
type Finisher interface {
	// Finish gives the file its name, durably.
	Finish(ctx context.Context) error
}

// CreateFile makes a file of size bytes of this machine, or opens a block device, to
// write to. A file gets its name when it is finished: until then, whatever happens,
// SIGKILL too, a file that has the name stays what it is. A block device is written
// in place, unless this machine uses it: ErrDeviceBusy.
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
		// What a symbolic link leads to is replaced, not the link.
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

// ErrDeviceBusy: a block device is mounted, or part of another one.
var ErrDeviceBusy = errors.New("the block device is in use: it is mounted, or part of another one")

// OpenUsedDevice opens a block device to write to, also one that this machine uses.
func OpenUsedDevice(path string) (Disk, error) { return openDevice(path, 0) }

// openDevice opens a block device. O_EXCL without O_CREAT fails where the kernel has
// it mounted or made it a part of another one (open(2)).
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

// aside is a file that has no name yet, or on file systems that know no such thing a
// hidden one.
type aside struct {
	file
	path     string
	existing Existing
	hidden   string // "" without
}

// ownFiles is where the kernel shows the files that this process has open.
const ownFiles = "/proc/self/fd"

// openAside makes it in the directory of path, so that it can get that name.
func openAside(path string, existing Existing) (*aside, error) {
	a := &aside{path: path, existing: existing}
	if _, err := os.Stat(ownFiles); err != nil {
		return a, a.openHidden() // there would be no way to name it
	}
	f, err := os.OpenFile(filepath.Dir(path), os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return a, a.openHidden()
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	a.File = f
	return a, nil
}

// openHidden makes the file where the file system knows none without a name.
func (a *aside) openHidden() (err error) {
	hidden := a.hiddenName()
	if a.File, err = os.OpenFile(hidden, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("make %s: %w", a.path, err)
	}
	a.hidden = hidden
	return nil
}

// hiddenName returns a random one next to path.
func (a *aside) hiddenName() string {
	dir, name := filepath.Split(a.path)
	return filepath.Join(dir, "."+name[:min(len(name), 100)]+".odx-"+rand.Text())
}

// take gives the new file the mode and, where that is allowed, the owner of the one that
// it is to replace.
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

// name gives the file its name.
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

// link gives the file without a name one that is not taken.
func (a *aside) link(to string) error {
	from := fmt.Sprintf("%s/%d", ownFiles, a.Fd())
	err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	return err
}

// renameToNew gives the hidden file a name that is not taken.
func (a *aside) renameToNew() error {
	err := unix.Renameat2(unix.AT_FDCWD, a.hidden, unix.AT_FDCWD, a.path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// The file system cannot do it in one step.
		if _, err := os.Lstat(a.path); !errors.Is(err, fs.ErrNotExist) {
			return ErrExists
		}
		return os.Rename(a.hidden, a.path)
	}
	return err
}

// Close implements Disk. It removes what has not been finished.
func (a *aside) Close() error {
	err := a.file.Close()
	if a.hidden != "" {
		err = errors.Join(err, os.Remove(a.hidden))
	}
	return err
}
