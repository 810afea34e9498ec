package vfs

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"odx/owner"
)

// Files have the data of users' disks and are accessible only to their owner.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// OS returns the FS of the operating system.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct{ *os.File }

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

// OpenToRead implements Reader. The file need not be writable.
func (osFS) OpenToRead(name string) (File, error) { return openOS(name, os.O_RDONLY) }

// MayChange implements Prober.
func (osFS) MayChange(dir string) error {
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// openOS opens a regular file. Nothing else is waited for (a pipe), read or written.
func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag|unix.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: owner.ErrNotFile}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return osFile{f}, nil
}

// openDir opens a directory. Nothing else is opened: a pipe would wait for a writer.
func openDir(dir string) (*os.File, error) { return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) }

func (osFS) Remove(name string) error { return remove(name) }

func (osFS) Rename(from, to string) error { return rename(from, to, os.Rename) }

func (osFS) List(dir string) ([]string, error) {
	f, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = withoutHeld(names)
	slices.Sort(names)
	return names, nil
}

func (o osFS) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

func (osFS) SyncDir(dir string) error {
	f, err := openDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Owner implements FS.
func (osFS) Owner(dir string) owner.Driver { return owner.Directory(dir) }

func (f osFile) Sync() error {
	return f.call("fdatasync", unix.Fdatasync)
}

func (f osFile) WriteBack(off, n int64) error {
	return f.call("sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

// call retries a system call while signals interrupt it.
func (f osFile) call(name string, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if callErr = fn(int(fd)); callErr != unix.EINTR {
				return
			}
		}
	})
	if err != nil { // the file is closed
		return &fs.PathError{Op: name, Path: f.Name(), Err: fs.ErrClosed}
	}
	if callErr != nil {
		return &fs.PathError{Op: name, Path: f.Name(), Err: callErr}
	}
	return nil
}

func (f osFile) Allocate(n int64) error {
	err := f.call("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, n)
	})
	if errors.Is(err, unix.ENOSPC) && f.has(n) {
		return nil // XFS wants free blocks before it sees that it needs none
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	size, err := f.Size()
	piece := make([]byte, 1<<20)
	for ; err == nil && size < n; size += int64(len(piece)) {
		_, err = f.WriteAt(piece[:min(int64(len(piece)), n-size)], size)
	}
	return err
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (osFS) Free(dir string) (int64, error) {
	return statfs(dir, func(st *unix.Statfs_t) uint64 { return st.Bavail })
}

func (osFS) Total(dir string) (int64, error) {
	return statfs(dir, func(st *unix.Statfs_t) uint64 { return st.Blocks })
}

// statfs returns a number of blocks in bytes.
func statfs(dir string, blocks func(*unix.Statfs_t) uint64) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	size := int64(st.Bsize) // of another type on some architectures
	return int64(min(blocks(&st), uint64(math.MaxInt64/size))) * size, nil
}
