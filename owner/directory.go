package owner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LockName is the name of the lock file in the directory of a store. Its length is the
// epoch of the last claim: to change it takes no block of a full disk. Older versions of
// odx know of this file alone.
const LockName = "lock"

const (
	lockMode = 0o600
	// renewEvery is how often a claim of a directory is compared with what is there.
	renewEvery = time.Second
	// claimTries bounds how often a claim begins again because names changed below it.
	claimTries = 8
)

// Directory returns the driver for a store in a directory of this machine. A claim is a
// flock(2) of the directory itself, which the kernel holds until the process ends, and of
// the lock file in it. So it does not matter what becomes of the lock file. A directory
// that something else has taken the place of is lost: paths lead to the other one.
//
// On a file system that has no locks of directories, as NFS, the lock file has to do: the
// claim is lost when another file has its name.
func Directory(path string) Driver { return directory{path: path, flags: unix.O_RDWR | unix.O_CREAT} }

// ReadDirectory is Directory for those who change nothing: a claim excludes others and
// makes no file. Its epoch is not larger: it is that of the last claim of a Directory.
func ReadDirectory(path string) Driver { return directory{path: path, flags: unix.O_RDONLY} }

type directory struct {
	path  string
	flags int // for the lock file
}

// readOnly: no file is changed or made.
func (d directory) readOnly() bool { return d.flags == unix.O_RDONLY }

func (d directory) lockFile() string { return filepath.Join(d.path, LockName) }

// RenewEvery implements Driver.
func (d directory) RenewEvery() time.Duration { return renewEvery }

// Claim implements Driver.
func (d directory) Claim(ctx context.Context) (Holding, error) {
	return d.claim(ctx, unix.LOCK_EX|unix.LOCK_NB)
}

// Wait implements Driver. The kernel wakes it when the owner has gone. A process cannot
// call it off: after the end of ctx, what it takes later is given back at once.
func (d directory) Wait(ctx context.Context) (Holding, error) {
	type result struct {
		h   Holding
		err error
	}
	taken := make(chan result)
	go func() {
		h, err := d.claim(ctx, unix.LOCK_EX)
		select {
		case taken <- result{h, err}:
		case <-ctx.Done(): // maybe no receiver is left
			if err == nil {
				_ = h.Release() // of locks: closing the files can fail with nothing to be done
			}
		}
	}()
	select {
	case r := <-taken:
		return r.h, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// claim takes the locks by flock(2) with how.
func (d directory) claim(ctx context.Context, how int) (Holding, error) {
	for range claimTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := d.take(how)
		if !errors.Is(err, errReplaced) {
			return h, err
		}
	}
	return nil, fmt.Errorf("%w: %s is replaced again and again", ErrHeld, d.path)
}

// errReplaced: another file has the name by now.
var errReplaced = errors.New("another file has its name")

// take takes the locks once.
func (d directory) take(how int) (_ Holding, err error) {
	h := &directoryHolding{d: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Release())
		}
	}()
	if h.dir, err = os.OpenFile(d.path, os.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	if err := h.lockDirectory(how); err != nil {
		return nil, err
	}
	if err := sameFile(h.dir, d.path); err != nil {
		return nil, err
	}
	if h.file, err = d.openLock(how); err != nil {
		return nil, err
	}
	if h.file == nil {
		return h, nil // there is none, and none is made
	}
	return h, h.count()
}

// lockDirectory locks the directory, where its file system can.
func (h *directoryHolding) lockDirectory(how int) error {
	switch err := flock(h.dir, how); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%s: %w", h.d.lockFile(), ErrHeld)
	case noLocks(err):
		return nil
	case err != nil:
		return err
	}
	h.dirLocked = true
	return nil
}

// noLocks: the file system locks no directory.
func noLocks(err error) bool {
	for _, no := range []error{unix.EBADF, unix.EINVAL, unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// openLock opens and locks the lock file; nil where there is none and none may be made.
func (d directory) openLock(how int) (*os.File, error) {
	name := d.lockFile()
	f, err := os.OpenFile(name, d.flags|unix.O_NONBLOCK, lockMode) // a pipe by its name is not waited for
	if d.readOnly() && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err = flock(f, how); errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w", name, ErrHeld)
	}
	if err == nil {
		err = sameFile(f, name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// flock locks a file that is open. A signal does not end it.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// sameFile returns errReplaced if name is not of the file that is open.
func sameFile(f *os.File, name string) error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(open, now) {
		return fmt.Errorf("%s: %w", name, errReplaced)
	}
	return err
}

// directoryHolding is a claim of a directory.
type directoryHolding struct {
	d         directory
	dir       *os.File
	dirLocked bool
	epoch     uint64

	mu   sync.Mutex // guards file, which Renew can replace
	file *os.File   // nil where there is no lock file and none may be made
}

// ErrNotFile: something else has the name of a file: a directory, a pipe, a device.
var ErrNotFile = errors.New("it is not a regular file")

// count takes the next epoch, durably.
func (h *directoryHolding) count() error {
	info, err := h.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		h.epoch = uint64(info.Size())
	}
	if h.d.readOnly() {
		return nil
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", h.file.Name(), ErrNotFile)
	}
	h.epoch++
	return h.store()
}

// store makes the epoch durable.
func (h *directoryHolding) store() error {
	return errors.Join(h.file.Truncate(int64(h.epoch)), h.file.Sync(), h.dir.Sync())
}

// Epoch implements Holding.
func (h *directoryHolding) Epoch() uint64 { return h.epoch }

// Lease implements Holding: the kernel keeps the locks.
func (h *directoryHolding) Lease() time.Duration { return 0 }

// Renew implements Holding.
func (h *directoryHolding) Renew(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.compare()
}

// compare returns an ErrLost if something else is where the claim is. h.mu is held.
func (h *directoryHolding) compare() error {
	err := sameFile(h.dir, h.d.path)
	if err == nil && h.file != nil {
		err = sameFile(h.file, h.d.lockFile())
		if errors.Is(err, errReplaced) && h.dirLocked && !h.d.readOnly() {
			err = h.lockAgain()
		}
	}
	if errors.Is(err, errReplaced) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// lockAgain makes and locks the lock file again, which was removed or replaced. h.mu is
// held. The
// directory is locked: who could have the file is an older version of odx, and then the
// store is lost.
func (h *directoryHolding) lockAgain() error {
	f, err := h.d.openLock(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, ErrHeld) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err != nil {
		return err
	}
	old := h.file
	h.file = f
	return errors.Join(old.Close(), h.store())
}

// Release implements Holding.
func (h *directoryHolding) Release() error {
	var errs []error
	for _, f := range []*os.File{h.file, h.dir} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
